"""The handler in Python: executes its steps, and records each in a journal. `handler.js` does the same."""

from __future__ import annotations

import gc
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from tests.stress.model.program import PLAIN_THREADS, message
from wsthreads import BrokerError, Session
from wsthreads.sessions.endpoint import Endpoint

#: Entries of the journal in one message.
CHUNK = 500


class Doomed:
    """Garbage in a cycle. The collector finalizes it in the thread that triggers a collection."""

    def __init__(self, do: Any) -> None:
        self.do, self.me = do, self

    def __del__(self) -> None:
        self.do()


class Handler:
    def __init__(self) -> None:
        self.endpoint: Endpoint | None = None
        self._journal: deque[list[Any]] = deque()  # only single operations, which are atomic; a lock would hide races
        self._sessions: dict[str, Session] = {}  # likewise
        self._starting = Lock()
        self._queues: list[SimpleQueue[Any]] = []
        self._pid = 0

    def _start(self) -> None:
        """Called once in each process: a worker is a fork of the process that created the handler."""
        with self._starting:
            if self._pid == os.getpid():
                return
            gc.set_threshold(100, 3, 3)
            self._pid = os.getpid()
            self._queues = [SimpleQueue() for _ in range(PLAIN_THREADS)]
            for number, queue in enumerate(self._queues):
                Thread(target=self._serve, args=(f"plain {number}", queue), name=f"plain-{number}", daemon=True).start()

    def _serve(self, thread: str, queue: SimpleQueue[Any]) -> None:
        while True:
            self._run(thread, *queue.get())

    def on_open(self, session: Session) -> None:
        self._start()
        name = session.get_parameter("name")
        session.attributes.update(name=name, call=Lock(), over=False, last=json.loads(session.get_parameter("last")))
        with self._call(session, "on_open"):
            session.send(f"hello {os.getpid()}")
            self._sessions[name] = session  # from now on, others may send to it
            self._note("opened", name)
            self._run(name, session, json.loads(session.get_parameter("open")))

    def on_message(self, session: Session, told: str | bytes) -> None:
        with self._call(session, "on_message"):
            if told == "journal":
                self._send_journal(session)
                return
            name, command = session.attributes["name"], json.loads(told)
            via, number, steps = command["via"], command["number"], command["steps"]
            if via == "plain":
                self._queues[number % PLAIN_THREADS].put((session, steps))
            elif via == "finalizer":
                Doomed(lambda: self._run(f"finalizer {number}", session, steps))
            else:
                if via == "await":
                    time.sleep(0.001)
                self._run(name, session, steps)

    def on_close(self, session: Session, code: int, reason: str) -> None:
        with self._call(session, "on_close"):
            name, rooms = session.attributes["name"], session.rooms()
            if session.is_open() or session.send("never to be seen"):
                self._note("wrong", f"{name} is open, or could send, in on_close")
            if alone := [room for room in rooms if session.room(room).members() < 1]:
                self._note("wrong", f"in on_close of {name}, members() did not count it in {alone}")
            self._run(name, session, session.attributes["last"])
            self._note("closed", name, code, rooms)
            session.attributes["over"] = True
            self._sessions.pop(name, None)

    @contextmanager
    def _call(self, session: Session, hook: str) -> Iterator[None]:
        """Note a call that overlaps with another call of its session, or follows `on_close`."""
        lock = session.attributes["call"]
        alone = lock.acquire(blocking=False)
        if not alone or session.attributes["over"]:
            when = "after on_close" if alone else "during another call"
            self._note("wrong", f"{hook} of {session.attributes['name']} {when}")
        try:
            yield
        finally:
            if alone:
                lock.release()

    def _run(self, thread: str, session: Session, steps: list[list[Any]]) -> None:
        for step in steps:
            try:
                result = self._do(thread, session, *step)
            except BrokerError:
                result = "refused"
            except Exception as error:
                self._note("wrong", f"{step} of {session.attributes['name']} raised {error!r}")
                result = "failed"
            self._note("did", thread, step[0], result)

    def _do(self, thread: str, session: Session, number: int, op: str, argument: str, size: int) -> Any:
        if op in ("send", "close"):
            target = self._sessions.get(argument)
            if target is None:
                return "gone"
            return target.close(4000, "by handler") if op == "close" else target.send(message(number, size))
        if op == "nap":
            return time.sleep(size / 1e6)
        room = session.room(argument)
        if op == "broadcast":
            if thread.startswith("plain") and number % 2:
                return self.endpoint.room(argument).broadcast(message(number, size), hand_over=number % 3 == 0)
            return room.broadcast(message(number, size), hand_over=number % 3 == 0)
        if op == "broadcast_except":
            return room.broadcast_except(message(number, size))
        return {"join": room.join, "leave": room.leave, "members": room.members}[op]()

    def _note(self, *entry: Any) -> None:
        self._journal.append(list(entry))

    def _send_journal(self, session: Session) -> None:
        """Send the new journal entries as JSON lists; an empty list marks the end."""
        gc.collect()
        entries = []
        while self._journal:
            entries.append(self._journal.popleft())
        for start in range(0, len(entries), CHUNK):
            session.send(f"journal {json.dumps(entries[start : start + CHUNK])}")
        session.send("journal []")
