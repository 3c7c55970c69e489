"""`request.setExpiry` and `session.setExpiry` in scripts."""

from __future__ import annotations

import re

import pytest

from wsthreads import HandshakeRefused
from wsthreads.testing import play

GUARD = """
let kept;
export async function onHandshake(request) {
  kept = request;
  await null;
  const left = request.getParameter("left");
  if (left !== null) request.setExpiry(Date.now() / 1000 + Number(left));
  if (request.getParameter("bad") !== null) request.setExpiry(eval(request.getParameter("bad")));
}
export function onMessage(session, message) {
  try {
    session.setExpiry(eval(message));
    session.send("set");
  } catch (error) {
    session.send(`${error.name}: ${error.message}`);
  }
}
export function onClose(session, code, reason) { console.log("closed", code, reason, session.isOpen()); }
"""


@pytest.fixture
def guard(tmp_path):
    (tmp_path / "guard.js").write_text(GUARD)
    return tmp_path / "guard.js"


def test_a_session_expires(guard, caplog):
    caplog.set_level("INFO", "wsthreads")
    with play(guard) as chat:
        ann, bob, eve = chat.connect(left="60"), chat.connect(left="60"), chat.connect()
        bob.send("Date.now() / 1000 + 100")
        chat.advance(59)
        assert ann.is_open
        chat.advance(1)
        assert ann.closed == (3000, "expired")
        chat.advance(39)
        assert bob.is_open
        chat.advance(1)
        assert bob.closed == (3000, "expired")
        eve.send("0")
        assert eve.closed == (3000, "expired")
    assert caplog.text.count("closed 3000 expired false") == 3


def test_a_handshake_that_is_late_is_refused(guard):
    with play(guard) as chat, pytest.raises(HandshakeRefused, match="401 expired 5 s ago"):
        chat.connect(left="-5")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("undefined", "TypeError: an expiry is a number of seconds .*, as in Date.now() / 1000 + 60, not undefined"),
        ("null", "TypeError: an expiry is a number .*, not null"),
        ("'60'", "TypeError: an expiry is a number .*, not \"60\""),
        ("new Date()", "TypeError: an expiry is a number .*, not \"20"),
        ("60n", "TypeError: an expiry is a number .*, not 60n"),
        ("NaN", "RangeError: an expiry is a finite number of seconds since the epoch, not NaN"),
        ("-Infinity", "RangeError: .*, not -Infinity"),
        ("Date.now()", "RangeError: .*the last one is 253402300799, in the year 9999; in milliseconds?"),
        ("1e300", "RangeError: .* not 1e.*300: the last one"),
    ],
)
def test_what_is_no_time_is_an_error(guard, bad, message):
    pattern = message.replace("(", r"\(").replace(")", r"\)").replace("+", r"\+")
    with play(guard, raise_errors=False) as chat:
        ann = chat.connect()
        ann.send(bad)
        (said,) = ann.take()
        assert re.match(pattern, said), said
        chat.advance(10**6)
        assert ann.is_open
        with pytest.raises(HandshakeRefused, match="500 the handler failed"):
            chat.connect(bad=bad)
        assert len(chat.errors) == 1


def test_a_request_that_was_kept_says_that_it_is_over(tmp_path):
    (tmp_path / "kept.js").write_text("""
        let kept;
        export function onHandshake(request) { kept = request; }
        export function onMessage(session) {
          try { kept.setExpiry(0); } catch (error) { session.send(error.message); }
        }
    """)
    with play(tmp_path / "kept.js") as chat:
        ann = chat.connect()
        ann.send("")
        assert ann.take() == ["request.setExpiry() must be called before onHandshake has returned"]
        assert ann.is_open


def test_a_session_that_has_ended_can_be_given_a_time(tmp_path):
    (tmp_path / "late.js").write_text("""
        let late;
        export function onOpen(session) { late?.setExpiry(0); }
        export function onClose(session) { late = session; session.setExpiry(0); }
    """)
    with play(tmp_path / "late.js") as chat:
        chat.connect().close()
        assert chat.connect().is_open
