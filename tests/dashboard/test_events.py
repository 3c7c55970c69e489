"""Which log records are events, and that nothing else about logging changes; what is sampled, what is shown."""

from __future__ import annotations

import datetime
import logging
import logging.config
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from wsthreads.app import WebSocketApp
from wsthreads.dashboard import redaction
from wsthreads.dashboard.events import KEPT, MAX_TEXT_CHARS, TOLD_CHARS, Events
from wsthreads.dashboard.redaction import shown_values
from wsthreads.dashboard.sampler import COARSE_S, FINE_S, HISTORY_S, Snapshot, _thinned, sample_of
from wsthreads.monitoring.metrics import BOUNDS_S, Distribution, Totals


@pytest.fixture
def events():
    logging.getLogger("wsthreads.test").setLevel("DEBUG")
    events = Events(but="/the/page")
    events.attach(logging.getLogger("wsthreads"))
    yield events
    events.detach()
    logging.getLogger("wsthreads.test").setLevel("NOTSET")


def kinds(events):
    return [(event["kind"], event["level"], event["text"]) for event in events.since(0)[0]]


def test_wsthreads_own_news_are_events_from_the_level_warning_up(events):
    log = logging.getLogger("wsthreads.test")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)("it is a %s", level)
    assert kinds(events) == [
        ("log", "warning", "it is a warning"),
        ("log", "error", "it is a error"),
        ("log", "error", "it is a critical"),
    ]


def test_what_a_user_logs_is_an_event_where_the_root_is_listened_to(caplog):
    events = Events(but="/the/page")
    events.attach(logging.getLogger())
    log = logging.getLogger("the.user")
    log.setLevel("INFO")
    try:
        log.info("hello")
        try:
            raise LookupError("nothing")
        except LookupError:
            log.exception("it failed")
    finally:
        events.detach()
        log.setLevel("NOTSET")
    assert kinds(events) == [("log", "info", "hello"), ("error", "error", "it failed: LookupError: nothing")]
    [hello, failed] = events.since(0)[0]
    assert hello["file"] == failed["file"] == __file__
    assert hello["line"] < failed["line"]


def test_the_page_s_own_sessions_are_no_events(events):
    logging.getLogger("wsthreads.test").error("x", extra={"endpoint": "/the/page"})
    assert events.newest == 0


def test_a_flood_pushes_no_error_out_and_what_is_dropped_is_counted(events):
    log = logging.getLogger("wsthreads.script.test")
    log.setLevel("INFO")
    try:
        log.error("an error")
        for number in range(1000):
            log.info("noise %d", number)
    finally:
        log.setLevel("NOTSET")
    found, newest, dropped = events.since(0)
    assert newest == 1001
    assert found[0]["text"] == "an error"
    assert len(found) == KEPT // 2 + 1
    assert dropped == 1001 - len(found)
    assert [event["n"] for event in found] == sorted(event["n"] for event in found)


def test_only_what_came_after_is_told(events):
    log = logging.getLogger("wsthreads.test")
    for number in range(3):
        log.warning("%d", number)
    found, newest, dropped = events.since(2)
    assert ([event["text"] for event in found], newest, dropped) == (["2"], 3, 0)
    assert events.since(3) == ([], 3, 0)


def test_a_record_that_cannot_be_formatted_ends_nothing(events, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's, which raise
    logging.getLogger("wsthreads.test").warning("%d", "x")
    logging.getLogger("wsthreads.test").warning("fine")
    assert [event["text"] for event in events.since(0)[0]] == ["fine"]
    assert "TypeError" in capsys.readouterr().err


class Unspeakable(Exception):
    error = LookupError

    def __str__(self):
        raise self.error("no words")


@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_an_exception_without_a_text_is_told_by_its_name(events, error, monkeypatch):
    monkeypatch.setattr(Unspeakable, "error", error)
    try:
        raise Unspeakable
    except Unspeakable:
        logging.getLogger("wsthreads.test").exception("it failed")
    (event,) = events.since(0)[0]
    assert event["text"] == "it failed: Unspeakable (no text: its __str__ failed)"
    assert event["detail"].startswith("Traceback")


def test_of_a_record_s_own_attributes_only_plain_ones_are_told(events):
    extra = {"session": SimpleNamespace(), "endpoint": float("nan"), "file": Path("x"), "line": "7", "column": True}
    logging.getLogger("wsthreads.mine").warning("x", extra=extra)  # a database's session, say
    (event,) = events.since(0)[0]
    assert [event[name] for name in extra] == [None] * 5


def test_much_is_told_in_parts(events):
    log = logging.getLogger("wsthreads.test")
    for _ in range(3 * TOLD_CHARS // MAX_TEXT_CHARS):
        log.warning("x" * 2 * MAX_TEXT_CHARS)
    told, newest, parts = [], 0, 0
    while newest != events.newest:
        part, newest, _ = events.since(newest)
        assert 0 < sum(len(event["text"]) for event in part) <= TOLD_CHARS
        told += part
        parts += 1
    assert parts >= 2
    numbers = [event["n"] for event in told]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == KEPT // 2


def test_where_logging_is_not_configured_warnings_are_still_printed(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's are there
    first, second = Events(but=""), Events(but="")
    for events in (first, second):
        events.attach(logging.getLogger("wsthreads"))
    try:
        logging.getLogger("wsthreads.test").warning("beware")
        logging.getLogger("wsthreads.test").info("never mind")
        assert capsys.readouterr().err == "beware\n"
        handler = logging.StreamHandler()
        logging.getLogger().addHandler(handler)
        logging.getLogger("wsthreads.test").warning("beware")
        assert capsys.readouterr().err == "beware\n"
    finally:
        first.detach()
        second.detach()


def test_after_detach_it_sees_nothing(events):
    events.detach()
    events.detach()
    logging.getLogger("wsthreads.test").warning("x")
    assert events.newest == 0
    assert events not in logging.getLogger("wsthreads").handlers


@pytest.mark.parametrize("loggers", [{}, {"wsthreads": {"level": "INFO"}}])
def test_an_application_that_configures_logging_meanwhile_does_not_end_it(loggers):
    app = WebSocketApp(dashboard_token="a-token-of-the-tests")
    events, log = app._dashboard._events, logging.getLogger("wsthreads.test")
    flusher = Mock()
    try:
        config = {"version": 1, "disable_existing_loggers": False, "loggers": loggers}
        logging.config.dictConfig(config)
        app._dashboard.start(flusher)  # at the first request; then by a timer
        log.warning("told")
        logging.config.dictConfig(config)
        app._dashboard._tick(flusher)
        log.warning("told again")
    finally:
        logging.getLogger("wsthreads").setLevel("NOTSET")
        app.shutdown(1)
    assert [event["text"] for event in events.since(0)[0]] == ["told", "told again"]
    assert events not in logging.getLogger("wsthreads").handlers


# Samples


def test_old_snapshots_are_thinned_out_and_the_oldest_dropped():
    snapshots = []
    for second in range(1000):
        snapshots = _thinned([*snapshots, Snapshot(0.0, float(second), {"/ws": Totals()})], float(second))
    ages = [999 - snapshot.clock for snapshot in snapshots]
    assert ages[-1] == 0
    assert HISTORY_S - 2 * COARSE_S < ages[0] <= HISTORY_S
    fine = [age for age in ages if age <= FINE_S]
    assert len(fine) == FINE_S + 1
    assert all(COARSE_S <= before - after <= 2 * COARSE_S for before, after in pairwise(ages[: -len(fine)]))


def test_many_endpoints_have_a_shorter_history():
    totals = {f"/ws/{number}": Totals() for number in range(1000)}
    snapshots = []
    for second in range(100):
        snapshots = _thinned([*snapshots, Snapshot(0.0, float(second), totals)], float(second))
    assert [snapshot.clock for snapshot in snapshots] == [97.0, 98.0, 99.0]


def times(**counts):
    """A distribution with so many in the first bucket (`quick`) and past the last bound (`slow`)."""
    empty = [0] * (len(BOUNDS_S) + 1)
    empty[0], empty[-1] = counts.get("quick", 0), counts.get("slow", 0)
    return Distribution(tuple(empty), 0.0)


def test_a_sample_is_what_has_come_since():
    before = Totals(messages_in=100, errors=1, handler_seconds={"on_open": times(slow=100)})
    now = {"on_open": times(slow=101), "on_message": times(quick=9)}
    after = Totals(messages_in=300, errors=1, sessions=3, handler_seconds=now)
    sample = sample_of(Snapshot(1.0, 10.0, {"/a": before}), Snapshot(5.0, 14.0, {"/a": after, "/b": Totals()}))
    assert sample["at"] == 5.0
    fields = sample["endpoints"]["/a"]
    assert (fields["messages_in"], fields["errors"], fields["sessions"]) == (50.0, 0.0, 3)
    assert fields["handler_p50_s"] <= BOUNDS_S[0]
    assert fields["handler_p99_s"] == BOUNDS_S[-1]
    assert sample["endpoints"]["/b"]["handler_p50_s"] is None
    assert sample["endpoints"]["/b"]["script_wait_max_s"] is None


# What is shown


class Trap:
    def __repr__(self):
        raise AssertionError("it was called")

    __str__ = __repr__


class Name(str):
    __str__ = __repr__ = __len__ = __getitem__ = Trap.__repr__


def test_values_are_shown_without_calling_their_code():
    assert shown_values({Trap(): 1, "name": Name("ann"), Name("other"): 2, 7: 3}) == {
        "<Trap>": "1", "name": "ann", "other": "2", "7": "3",
    }  # fmt: skip
    deep: list = []
    deep.append(deep)
    shown = shown_values(
        {
            "trap": Trap(),
            "traps": [Trap(), SimpleNamespace(a=1)],
            "when": datetime.date(2026, 11, 24),
            "deep": deep,
            "huge": 10**20_000,
            "many": list(range(1000)),
            "bytes": b"\xff",
            "none": None,
            "token": 12345,
            "inside": {"token": "abc", "list": [{"password": "abc"}]},
        }
    )
    assert shown["trap"] == "<Trap>"
    assert shown["traps"] == "[<Trap>, <SimpleNamespace>]"
    assert shown["when"] == "datetime.date(2026, 11, 24)"
    assert shown["deep"].startswith("[[[[")
    assert shown["huge"].startswith("<int of 66439 bits>")
    assert shown["many"].endswith("98, 99, …]")
    assert shown["bytes"] == r"b'\xff'"
    assert shown["none"] == "None"
    assert shown["token"] == "hidden (5 characters)"
    assert shown["inside"] == "{'token': hidden (3 characters), 'list': [{'password': hidden (3 characters)}]}"


def test_of_a_value_with_much_inside_little_is_looked_at(monkeypatch):
    looked_at = 0

    def is_secret(name):
        nonlocal looked_at
        looked_at += 1
        return False

    monkeypatch.setattr(redaction, "is_secret", is_secret)
    much: object = 0
    for _ in range(4):
        much = {f"key {number}": much for number in range(20)}  # 160,000 inside
    shown = shown_values({"much": much})["much"]
    assert shown.startswith("{'key 0': {'key 0': {'key 0': {'key 0': 0, 'key 1': 0")
    assert looked_at < 1500
