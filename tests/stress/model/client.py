"""A client with a thread of its own: connects, carries out its actions, and keeps the received messages in order."""

from __future__ import annotations

import json
import threading
from collections import deque
from random import Random
from time import monotonic
from urllib.parse import urlencode

from tests.stress.client import CLOSE, TEXT, Lost, WebSocket
from tests.stress.history import Violations, Wrong
from tests.stress.model.program import CLEAN_ENDS, FOREVER, Action, Command, Guest, Program, Step, message

IDLE_S = 0.01

#: The close codes that a server may send: the answer to a client's close, and the code of handlers.
CODES = (1000, 4000)


class Client(threading.Thread):
    """One session. `stream` has what it received, `end` is how the client ended it, `is_over` whether it has ended."""

    def __init__(
        self,
        guest: Guest,
        address: tuple[str, int],
        target: str,
        program: Program,
        violations: Violations,
        patience_s: float,
    ) -> None:
        super().__init__(name=guest.name, daemon=True)
        self.guest, self.name = guest, guest.name
        self._program, self._violations, self._patience_s = program, violations, patience_s
        self._address, self._target = address, target
        self._todo: deque[Action] = deque()
        self._told = threading.Condition()  # guards _busy
        self._busy = True
        self._left = threading.Event()
        self.stream: list[Step] = []
        self.journal: deque[list[object]] = deque()
        self.process = ""  # of its server
        self.end: str | None = None
        self.ended_at = FOREVER  # when the client began to end it
        self.is_over = False
        self.is_clean = False  # if it is over: everything that was sent to it has arrived

    def __repr__(self) -> str:
        how = f"ended by {self.end}" if self.end else "ended by a handler" if self.is_over else "connected"
        return f"{self.name} ({how})"

    # For the run.

    def do(self, actions: list[Action]) -> None:
        with self._told:
            self._todo.extend(actions)
            self._busy = True

    def await_done(self, timeout_s: float) -> bool:
        with self._told:
            return self._told.wait_for(lambda: not self._busy, timeout_s)

    def leave(self) -> None:
        """End the thread, whatever it is doing."""
        self._left.set()

    # The thread.

    def run(self) -> None:
        try:
            self._live()
        except Wrong as wrong:
            self._violations.add(wrong.check, f"{self.name}: {wrong.text}")
        except Lost as lost:
            if self.end not in ("FIN", "RST") and not self._left.is_set():
                self._violations.add("connection", f"{self.name} lost its connection: {lost}")
        except Exception as error:
            self._violations.add("test", f"{self.name}: {error!r}")
            raise
        finally:
            self.is_over = True
            with self._told:
                self._busy = False
                self._told.notify_all()
            if hasattr(self, "_socket"):
                self._socket.drop()

    def _live(self) -> None:
        guest = self.guest
        query = urlencode({"name": guest.name, "open": _steps(guest.opening), "last": _steps(guest.last)})
        dice = Random(guest.seed)
        guest.opening.sent_at = guest.last.sent_at = monotonic()
        self._socket = WebSocket(
            self._address, f"{self._target}?{query}", dice, receive_buffer=8192 if guest.small_buffer else None,
            timeout_s=self._patience_s,
        )  # fmt: skip
        self._socket.send_request()
        self._socket.read_response()
        while not self._socket.close_code and not self._left.is_set():
            with self._told:
                action = self._todo.popleft() if self._todo else None
                if action is None:
                    self._busy = False
                    self._told.notify_all()
            if action is None:
                self._receive(IDLE_S)
            else:
                self._act(action)
        if self._socket.close_code:
            self._finish()

    def _act(self, action: Action) -> None:
        command = action.command
        if action.kind == "do":
            command.sent_at = monotonic()
            self._socket.send(_wire(command), binary=False)
            self._receive(0)
        elif action.kind == "await":
            deadline = monotonic() + self._patience_s
            while command.done_at == FOREVER and not self._socket.close_code:
                if monotonic() > deadline:
                    raise Wrong("progress", f"{command.steps} were not done within {self._patience_s:g} s")
                self._receive(0.1)
        elif action.kind == "journal":
            self._socket.send(b"journal", binary=False)
        elif action.kind == "sleep":
            self._left.wait(action.seconds)
        else:
            self._end(action)

    def _end(self, action: Action) -> None:
        self.end, socket = action.kind, self._socket
        self.ended_at = monotonic()
        if action.kind == "RST":
            socket.reset()
            raise Lost("on purpose")
        if action.kind == "FIN":
            socket.half_close()
        elif action.kind == "close behind":
            action.command.sent_at = self.ended_at
            socket.close_sent = True
            close = (1000).to_bytes(2, "big")
            socket._send(socket._frame(TEXT, _wire(action.command)) + socket._frame(CLOSE, close))
        else:
            socket.send_close(1000)
            if action.kind == "close and FIN":
                socket.half_close()
        deadline = monotonic() + self._patience_s
        while not socket.close_code:
            if monotonic() > deadline:
                raise Wrong("progress", f"the server did not answer its close within {self._patience_s:g} s")
            self._receive(0.1)

    def _finish(self) -> None:
        code = self._socket.close_code
        if code not in CODES and self.end not in ("FIN", "RST"):
            raise Wrong("close code", f"the server closed it with {code}")
        if not self._socket.close_sent:
            self._socket.send_close(code)
        self._socket.finish(self._patience_s)
        self.is_clean = self.end is None or self.end in CLEAN_ENDS

    def _receive(self, timeout_s: float) -> None:
        for payload, binary in self._socket.receive(timeout_s):
            if payload.startswith(b"journal "):
                self.journal.append(json.loads(payload[8:]))
            elif not self.process:
                hello, _, self.process = payload.decode().partition(" ")
                if hello != "hello":
                    raise Wrong("life cycle", f"{payload[:50]!r} came before the first message of on_open")
            else:
                self._note(payload, binary)

    def _note(self, payload: bytes, binary: bool) -> None:
        number = payload.partition(b" ")[0]
        step = self._program.steps.get(int(number)) if number.isdigit() else None
        if step is None:
            raise Wrong("damaged", f"received {len(payload)} bytes that were never sent: {payload[:50]!r}")
        right = message(step.number, step.size)
        if binary != isinstance(right, bytes) or payload != (right if binary else right.encode()):
            raise Wrong("damaged", f"{len(payload)} bytes of {step} have another type or content")
        self.stream.append(step)
        command = step.command
        if command.acknowledged and step is command.steps[-1] and command.visit == self.name:
            command.done_at = monotonic()


def _steps(command: Command) -> str:
    return json.dumps([[step.number, step.op, step.argument, step.size] for step in command.steps])


def _wire(command: Command) -> bytes:
    number = command.steps[0].number
    return f'{{"via": "{command.via}", "number": {number}, "steps": {_steps(command)}}}'.encode()
