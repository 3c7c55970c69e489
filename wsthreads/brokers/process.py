"""The identity and the lock of this process. The links to all nodes of a Redis Cluster share one `Process`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from wsthreads.brokers.pending import PendingBroadcasts
from wsthreads.brokers.questions import weak

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Listener

__all__ = ["Endpoints", "Process"]


class Endpoints:
    """The functions of an app that its link calls. These functions are the same after a fork."""

    def __init__(self) -> None:
        self._listeners: WeakValueDictionary[str, Listener] = WeakValueDictionary()  # by path
        #: For each kind of question: a function that returns the function that answers.
        self.answers: dict[str, Callable[[], Callable[[Any], Any] | None]] = {}

    def register(self, path: str, listener: Listener) -> None:
        self._listeners[path] = listener

    def listeners(self) -> list[tuple[str, Listener]]:
        found = ((reference.key, reference()) for reference in self._listeners.valuerefs())  # `items` is not atomic
        return [(path, listener) for path, listener in found if listener is not None]

    def answer(self, kind: str, function: Callable[[Any], Any]) -> None:
        self.answers[kind] = weak(function)


class Process:
    """This process, as one of those that share rooms. A forked process makes another `Process`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.name = secrets.token_urlsafe(12)
        self.pending = PendingBroadcasts()
        #: Guards the queues, the rooms and their tickets, and the ends of the writers. A thread that holds this lock
        #: takes only locks that are leaves, and waits only for the lock's own conditions.
        self.lock = Lock()
        self.next_ticket = 0  # guarded by the lock
        #: Whether this process was forked from a server's process, and serves no clients itself. Its broadcasts wait
        #: until Redis has them, because it may end at any time by os._exit(), as in multiprocessing.
        self.is_forked = False
