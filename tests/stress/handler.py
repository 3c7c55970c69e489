"""The handler of the stress test in Python: executes its clients' commands and keeps a journal. See `history`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Lock

from tests.stress.faults import fail
from tests.stress.history import ASKED, BYE, FAULT, KICKED
from wsthreads import Request, RequestError, RequestTimeout, Session, SessionClosed

CHUNK = 1000


class Handler:
    """`handler.js` is the same in JavaScript."""

    def __init__(self) -> None:
        # One C call, so atomic with the GIL (and made so in free-threaded Python): a lock here would hide races.
        self._clock = count(1).__next__
        self._journal: deque[list[object]] = deque()
        self._sessions: dict[str, Session] = {}  # by name; single operations, also atomic

    def on_handshake(self, request: Request) -> None:
        request.user = request.get_parameter("user")

    def on_open(self, session: Session) -> None:
        session.attributes.update(name=session.get_parameter("name"), call=Lock(), over=False, away=False)
        self._sessions[session.attributes["name"]] = session
        with self._call(session, "on_open"):
            self._note("open", session, session.id)
            self._run(session, 0, session.get_parameter("steps").split(), "")

    def on_message(self, session: Session, message: str | bytes) -> None:
        with self._call(session, "on_message"):
            if message == "journal":
                self._send_journal(session)
                return
            head, _, body = message.partition("\n" if isinstance(message, str) else b"\n")
            seq, *steps = (head if isinstance(head, str) else head.decode()).split()
            fault = steps.pop()[1:] if steps[-1].startswith(FAULT) else None
            self._run(session, int(seq), steps, body)
            if fault is not None:
                fail(fault)

    def on_request(self, session: Session, message: str | bytes) -> str | bytes | None:
        with self._call(session, "on_request"):
            head, _, body = message.partition("\n" if isinstance(message, str) else b"\n")
            seq, *steps, how = (head if isinstance(head, str) else head.decode()).split()
            self._run(session, int(seq), steps, body)
        if how == ASKED + "e":
            raise RequestError(f"no {seq}")
        if how.startswith(FAULT):
            fail(how[1:])
        return None if how == ASKED + "n" else message

    def on_suspend(self, session: Session) -> None:
        with self._call(session, "on_suspend"):
            session.attributes["away"] = True

    def on_resume(self, session: Session) -> None:
        with self._call(session, "on_resume", is_away=True):
            session.attributes["away"] = False

    def on_close(self, session: Session, code: int, reason: str) -> None:
        with self._call(session, "on_close", is_away=session.attributes["away"]):
            is_open = session.is_open() or session.send("never to be seen")
            rooms = session.rooms()
            alone = [room for room in rooms if session.room(room).members() < 1]
            self._run(session, BYE, [f"x{room}" for room in rooms], None)
            self._note("close", session, code, reason, rooms, alone, is_open)
            session.attributes["over"] = True
            self._sessions.pop(session.attributes["name"], None)

    @contextmanager
    def _call(self, session: Session, hook: str, *, is_away: bool = False) -> Iterator[None]:
        """Note a call that overlaps with another call of its session, or follows `on_close`, or is out of place."""
        lock = session.attributes["call"]
        alone = lock.acquire(blocking=False)
        if not alone or session.attributes["over"]:
            self._note("wrong", session, f"{hook} {'after on_close' if alone else 'during another call'}")
        if session.attributes["away"] is not is_away:
            self._note("wrong", session, f"{hook} of a session that is {'not ' * is_away}suspended")
        try:
            yield
        finally:
            if alone:
                lock.release()

    def _run(self, session: Session, seq: int, steps: list[str], body: str | bytes | None) -> None:
        times = [self._clock()]
        for index, step in enumerate(steps):
            head = f"{session.attributes['name']} {seq} {index}\n"
            self._do(session, step[0], step[1:], head, body, hand_over=seq % 4 == 3)
            times.append(self._clock())
        self._note("ran", session, seq, times, [step[1:] for step in steps] if seq == BYE else None)

    def _do(
        self, session: Session, op: str, argument: str, head: str, body: str | bytes | None, *, hand_over: bool
    ) -> None:
        if op == "s":
            session.send(head)
        elif op == "c":
            session.close(int(argument), "as told")
        elif op == "e":
            session.send(_joined(head, body))
        elif op == "j":
            session.room(argument).join()
        elif op == "l":
            session.room(argument).leave()
        elif op == "b":
            session.room(argument).broadcast(_joined(head, body), hand_over=hand_over)
        elif op == "u":
            session.endpoint.user(argument).send(_joined(head, body), hand_over=hand_over)
        elif op == "x":
            message = _joined(head, argument if body is None else body)
            session.room(argument).broadcast_except(message, hand_over=hand_over)
        elif op == "q":
            self._ask(session, argument, head, _joined(head, body))
        elif op == "m":
            session.send(f"{head}{session.room(argument).members()}")
        elif op == "k":
            self._sessions[argument].close(KICKED, "by another")
        else:
            raise ValueError(f"no such step: {op}{argument}")

    def _ask(self, session: Session, how: str, head: str, message: str | bytes) -> None:
        """Ask the client, and note what comes of it."""
        _, seq, index = head.split()
        wanted = f"no {seq}" if how == "e" else None if how == "n" else message
        try:
            found = session.request(message)
        except RequestError as error:
            found = str(error)
        except (SessionClosed, RequestTimeout) as error:
            self._note("asked", session, int(seq), int(index), type(error).__name__)
            return
        is_right = found == wanted and type(found) is type(wanted)
        self._note("asked", session, int(seq), int(index), "" if is_right else f"{found!r:.60}, not {wanted!r:.60}")

    def _note(self, kind: str, session: Session, *what: object) -> None:
        self._journal.append([kind, session.attributes["name"], *what])

    def _send_journal(self, session: Session) -> None:
        """Send the new journal entries as JSON lists; an empty list marks the end."""
        entries: list[object] = []
        while self._journal:
            entries.append(self._journal.popleft())
        for start in range(0, len(entries), CHUNK):
            session.send(json.dumps(entries[start : start + CHUNK]))
        session.send("[]")


def _joined(head: str, body: str | bytes | None) -> str | bytes:
    return head + body if isinstance(body, str) else head.encode() + (body or b"")
