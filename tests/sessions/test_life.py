"""A session's life without a server: opened once, closed once, whatever a handler or another thread does."""

import logging

import pytest

from tests.room_worlds import World
from tests.wire import run_all
from wsthreads.monitoring.metrics import Metrics
from wsthreads.sessions.life import Life


class Calls:
    """A handler that keeps what it is called for."""

    def __init__(self):
        self.calls = []

    def open(self, session):
        self.calls.append("open")

    def close(self, session, code, reason):
        self.calls.append((code, reason, session.rooms()))


class Broken(Calls):
    """A handler whose errors get out, as none's should."""

    def open(self, session):
        super().open(session)
        raise RuntimeError("open")

    def close(self, session, code, reason):
        super().close(session, code, reason)
        raise RuntimeError("close")


@pytest.fixture
def world():
    world = World()
    yield world
    world.end()


def life_of(world, handler, metrics=None, session=None):
    return Life(
        session or world.member("r").session,
        handler=handler,
        rooms=world.rooms,
        metrics=metrics or Metrics(),
        path="/ws/test",
        log_level=logging.INFO,
        log_context={},
    )


def test_it_is_opened_and_closed_as_a_member_and_leaves_its_rooms_behind(world, caplog):
    caplog.set_level(logging.INFO)
    handler, metrics = Calls(), Metrics()
    life = life_of(world, handler, metrics)
    life.open()
    assert life.close(4000, "by\ne")
    life.record_end(was_too_slow=False)
    assert handler.calls == ["open", (4000, "by\ne", ["r"])]
    assert not world.rooms.names()
    assert metrics.snapshot() == {"sessions_opened": 1, "sessions_closed": 1}
    opened, closed = [record.getMessage() for record in caplog.records]
    assert opened.startswith(f"session {life.session.id} opened on /ws/test from ")
    assert closed.startswith(f"session {life.session.id} closed on /ws/test after ")
    assert closed.endswith(" s: 4000 'by\\ne'")


@pytest.mark.parametrize("nth", range(20))
def test_of_several_threads_that_close_it_one_does(world, nth):
    handler, closed = Calls(), []
    life = life_of(world, handler)
    life.open()
    run_all(*[lambda code=code: closed.append(life.close(code, "")) for code in range(4000, 4006)])
    assert sorted(closed) == [False] * 5 + [True]
    assert len(handler.calls) == 2


def test_what_was_never_opened_is_not_closed_but_leaves_its_rooms(world):
    handler = Calls()
    life = life_of(world, handler)
    assert life.close(1011, "server error")
    assert handler.calls == []
    assert not world.rooms.names()


def test_where_a_step_fails_the_later_ones_are_taken(world):
    handler = Broken()
    life = life_of(world, handler)
    with pytest.raises(RuntimeError, match="open"):
        life.open()
    with pytest.raises(RuntimeError, match="close"):
        life.close(1011, "server error")
    assert handler.calls == ["open", (1011, "server error", ["r"])]
    assert not world.rooms.names()
    assert not life.close(1000, "again")


def test_its_end_is_that_of_the_session_and_not_of_one_connection(world):
    """What a session that survives a lost connection rests on."""
    handler, member = Calls(), world.member("r")
    life = life_of(world, handler, session=member.session)
    life.open()
    member.channel.keep()
    member.leave()
    member.come_back(0)
    world.rooms.room("r").broadcast("hello")
    assert member.receive(1) == ["hello"]
    assert life.close(1000, "")
    assert handler.calls == ["open", (1000, "", ["r"])]


def test_the_end_of_a_client_that_was_too_slow_has_a_logger_of_its_own(world, caplog):
    caplog.set_level(logging.INFO)
    life = life_of(world, Calls())
    life.open()
    life.close(1013, "too slow")
    life.record_end(was_too_slow=True)
    assert caplog.records[-1].name == "wsthreads.sessions.life.slow"
