"""The error tree."""

import re

import pytest

from wsthreads import errors
from wsthreads.errors import (
    BackendError,
    CloseCode,
    CloseCodeError,
    ConfigError,
    ExpiryError,
    HandshakeRefused,
    PeerError,
    ScriptError,
    UsageError,
    UserError,
    WSThreadsError,
    brief,
)
from wsthreads.protocol.frames import check_close
from wsthreads.protocol.handshake import check_expiry, check_user
from wsthreads.rooms.bans import check_ban


def test_every_public_error_has_the_one_root():
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind is not CloseCode:
            assert issubclass(kind, WSThreadsError), name


def test_the_tree_and_the_public_names_have_every_error():
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds - set(errors.__all__) == set()
    assert kinds == set(re.findall(r"^[ │├└─]*(\w+)", errors.__doc__.partition("::\n\n")[2].partition("\n\n")[0], re.M))


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigError", ValueError),
        ("MessageTypeError", TypeError),
        ("CloseCodeError", ValueError),
        ("RoomNameError", ValueError),
        ("RoomLimitError", ValueError),
        ("HistoryError", ValueError),
        ("PresenceError", ValueError),
        ("RoomStateError", ValueError),
        ("UserError", ValueError),
        ("ExpiryError", ValueError),
        ("HandlerError", TypeError),
    ],
)
def test_a_callers_mistake_is_also_the_builtin_error_that_one_would_expect(name, builtin):
    kind = getattr(errors, name)
    assert issubclass(kind, builtin)
    assert issubclass(kind, UsageError)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ProtocolError", 1002),
        ("UnsupportedDataError", 1003),
        ("InvalidPayloadError", 1007),
        ("PolicyError", 1008),
        ("MessageTooBigError", 1009),
        ("TooManyFragmentsError", 1009),
    ],
)
def test_each_fault_of_a_peer_names_its_close_code(name, code):
    kind = getattr(errors, name)
    assert issubclass(kind, PeerError)
    assert kind.close_code == code


def test_no_error_belongs_to_two_branches():
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind is not CloseCode:
            assert sum(issubclass(kind, branch) for branch in (UsageError, PeerError, BackendError)) <= 1, name


@pytest.mark.parametrize(
    ("line", "column", "text"),
    [(3, 7, "chat.js:3:7: no"), (3, None, "chat.js:3: no"), (None, None, "chat.js: no")],
)
def test_a_script_error_reads_as_file_line_and_column(line, column, text):
    error = ScriptError("no", "chat.js", line, column)
    assert str(error) == text
    assert (error.path, error.line, error.column, error.message) == ("chat.js", line, column, "no")


@pytest.mark.parametrize("status", [101, 200, 302, 399, 600, "403", None])
def test_a_refusal_with_a_status_that_is_no_error_is_a_mistake_that_names_it(status):
    with pytest.raises(ConfigError, match="400 to 599") as caught:
        HandshakeRefused(status)
    assert repr(status) in str(caught.value)


def test_a_refusal_keeps_its_status_reason_and_headers():
    refusal = HandshakeRefused(429, "slow down", [("Retry-After", "3")])
    assert (refusal.status, refusal.reason, refusal.headers) == (429, "slow down", (("Retry-After", "3"),))
    assert str(refusal) == "429 slow down"


def check_code(code):
    check_close(code, "")


class Unwritable:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "shown"),
    [("x" * 99, "'" + "x" * 39), (10**5000, "a number of 16610 bits"), (Unwritable(), "Unwritable"), (None, "None")],
    ids=["long", "huge", "unwritable", "None"],
)
def test_a_wrong_value_is_shown_briefly_whatever_it_is(value, shown):
    assert brief(value) == shown


@pytest.mark.parametrize(
    ("check", "error"),
    [(check_ban, UserError), (check_user, UserError), (check_expiry, ExpiryError), (check_code, CloseCodeError)],
)
@pytest.mark.parametrize("value", [10**5000, -(10**5000), Unwritable()], ids=["huge", "negative", "unwritable"])
def test_any_wrong_value_is_the_documented_error(check, error, value):
    with pytest.raises(error):
        check(value)
