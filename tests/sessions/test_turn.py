"""Who handles the events of a session when something fails."""

from types import SimpleNamespace

import pytest

from wsthreads.sessions.turn import Turn


class Failing(Turn):
    def __init__(self):
        super().__init__(SimpleNamespace(message=lambda session, message: self.handled.append(message)))
        self.session, self.handled, self.called = SimpleNamespace(_thread=0), [], []

    def begin_close(self, code, reason=""):
        self.called.append(code)
        return True

    def _run_later(self):
        assert self._take_turn(), "the turn was given up before"
        self._give_up_turn()
        self.called.append("later")


@pytest.fixture
def turn():
    turn = Failing()
    turn._give_up_turn()
    return turn


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_what_others_have_left_to_a_thread_that_fails_is_handled_later(turn, error):
    def fail(it):
        it._events.append("from another thread")
        it.run()  # as that thread does, which finds the turn taken
        raise error("on purpose")

    turn._events.append(fail)
    with pytest.raises(error, match="on purpose"):
        turn.run()
    assert turn.called == [1011, "later"]
    turn.run()
    assert turn.handled == ["from another thread"]


def test_after_a_failure_with_nothing_left_there_is_nothing_to_do_later(turn):
    def fail(it):
        raise RuntimeError("on purpose")

    turn._events.append(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        turn.run()
    assert turn.called == [1011]
