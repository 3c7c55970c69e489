"""A client thread of the chaos mode: it also causes faults of its connection or its handler."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep

from tests.stress.client import Lost
from tests.stress.history import KICKED, End, Wrong
from tests.stress.roamer import WINDOW, Control, Roamer
from tests.stress.survivor import Survivor
from tests.stress.visitor import PATIENCE_S

#: How much more often clients lose their connections here.
RECKLESSNESS = 3

#: How long a client sends before it checks again whether it has been closed.
LOOK_S = 0.02

#: The script handles the commands of these numbers behind an ``await``: one in 16.
LATE_EVERY, LATE = 16, 7

#: The close code for sessions of a handler that has failed permanently.
FAILED = 1011


class Daredevil(Roamer):
    """See `Roamer`; orders are for `roam`."""

    def _repertoire(self) -> list[tuple[Callable[[], None], float]]:
        deaths = (self.reset, self.vanish, self.break_off, self.give_up_handshake, self.lose_connection)
        usual = super()._repertoire()
        often = [(action, weight * RECKLESSNESS if action in deaths else weight) for action, weight in usual]
        return [*often, (self.fail, 1.5), (self.break_off_between_fragments, 0.5)]

    def connect(self) -> None:
        """While the server may have no descriptors left, a refusal is permitted."""
        while True:
            began = monotonic()
            try:
                super().connect()
            except Wrong as wrong:
                if wrong.check != "handshake" or not self._world.is_excused(began):
                    raise
                self._socket.drop()
                self._gone(End("handshake refused", opened=False))
                sleep(LOOK_S)
            else:
                return

    def fail(self) -> None:
        """Make the handler execute the command and then fail. Only that call may end."""
        (kind,) = self._rng.choices(("raise", "recurse", "heap"), (10, 4, 1))
        self.counts[f"handler told to {kind}"] += 1
        how = "r" if kind == "raise" and isinstance(self._socket, Survivor) and self._rng.random() < 0.5 else ""
        self.counts["requests to the handler"] += bool(how)
        self.issue(["e", f"b{self._own_room()}", "s"], *self._world.bodies.choose(self._rng), fault=kind, how=how)

    def break_off_between_fragments(self) -> None:
        with suppress(Lost):
            self._socket.send_part_of_message()
        self._socket.reset()
        self._gone(End("reset within a message"))

    def await_ping(self) -> None:
        """Be silent until the server sends a ping, which shows that its timers still work."""
        before = self._socket.pings_received
        self._read_until(lambda: self._socket.pings_received > before, "a ping")

    # Orders.

    def overrun(self) -> None:
        """Make the handler loop forever. It must be stopped, and the session closed.

        A loop behind an ``await`` is stopped as soon, but its promise stays pending, and the session closes only when
        the promise has had its time: `SCRIPT_WAIT_S`.
        """
        self.counts["handler told to loop"] += 1
        if (self.visit.last_seq + 1) % LATE_EVERY == LATE:
            self.issue(["s"])
        self.issue(["e", f"b{self._own_room()}", "s"], b"for ever", fault="loop")
        self._end_as_told(End("timed out", frozenset({FAILED}), complete=True))

    def kick(self, victim: str) -> None:
        """Make the handler close another session."""
        self.issue([f"b{self._own_room()}", f"k{victim}", "s"], b"out with you")

    def be_kicked(self) -> None:
        self._talk_until_closed()
        self._end_as_told(End("kicked", frozenset({KICKED}), torn=True))

    def outlive_handler(self) -> None:
        """The isolate dies meanwhile, and all of its sessions must be closed."""
        self._talk_until_closed()
        self._end_as_told(End("handler died", frozenset({FAILED})))

    def _talk_until_closed(self) -> None:
        alive, room = monotonic(), self._own_room()
        try:
            while self._socket.close_code is None:
                if monotonic() - alive > PATIENCE_S:
                    raise Wrong("progress", f"{self.visit.name} should have been closed {PATIENCE_S:g} s ago")
                if self.under_way < WINDOW:
                    self.issue([f"b{room}", "s"], b"last words")
                self._look()
                self._take(self._socket.receive(LOOK_S))
        except Lost as error:
            raise Wrong("connection", f"{self.visit.name} was not told that it is over: {error}") from None

    def _end_as_told(self, end: End) -> None:
        try:
            self._read_to_close()
            (code,) = end.codes
            self._check_code(code)
            self._socket.send_close(code)
        except Lost as error:
            raise Wrong("close handshake", f"{self.visit.name}, {end.kind}: {error}") from None
        self._socket.finish(PATIENCE_S)
        self._gone(end)


class ToughControl(Control, Daredevil):
    """A control client that survives the death of the handler."""
