"""The page's WebSocket: sends data to open pages, and handles their requests.

A viewer is an open page. For the server, it is a session whose handler is `Live`. The session's thread handles the
requests of the page. Two common threads send to all viewers: one sends samples and events (the *news*), the other sends
lists, for which it may wait for other processes. The common threads run while there are viewers. A slow viewer misses
messages that do not fit into its queue. Each of the two threads measures how long its work takes, and then pauses long
enough to be busy for only a small part of the time.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from functools import partial
from threading import Event, Lock, Thread
from time import monotonic, thread_time, time
from typing import TYPE_CHECKING, Any

from wsthreads.dashboard.access import SUBPROTOCOL, Access, offered_token
from wsthreads.dashboard.actions import Actions
from wsthreads.dashboard.events import Events
from wsthreads.dashboard.requests import Broadcast, Mistake, PageRequest, ReadMessage, Send, Unwatch, Watch, parse
from wsthreads.dashboard.sampler import Sampler
from wsthreads.dashboard.workers import Workers
from wsthreads.errors import HandshakeRefused
from wsthreads.loggers import get_logger
from wsthreads.monitoring.failures import exc_info_of
from wsthreads.threads.flusher import weakly
from wsthreads.threads.gil import python_text
from wsthreads.threads.restarts import keep_running

if TYPE_CHECKING:
    from wsthreads.protocol.handshake import Request
    from wsthreads.sessions.endpoint import Endpoint
    from wsthreads.sessions.session import Session

__all__ = ["Live"]

log = get_logger(__name__)

#: The seconds between two samples while a page is open, and between two checks of a list that a viewer watches.
INTERVAL_S = 1.0
LIST_INTERVAL_S = 2.0

#: The seconds between two messages with events.
EVENTS_INTERVAL_S = 0.1

#: Samples use at most 1/100 of the time of a core, lists at most 1/40.
SAMPLES_SHARE = 100
LISTS_SHARE = 40

#: How long the thread of the last viewer waits for the end of each common thread.
JOIN_S = 2.0


class _Watching:
    """A list that a viewer watches.

    Only the thread of the lists uses it, except for attributes whose comment says more.
    """

    __slots__ = ("due", "sent", "watch")

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        # when to send the list, by `monotonic`; the viewer's thread may set this to 0, so that it is sent at once
        self.due = 0.0
        self.sent = ""


class _Viewer:
    """One open page."""

    __slots__ = ("events_seen", "session", "specification", "watching")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.specification = ""  # the last hello that was sent, without its history
        self.events_seen = -1
        # the lists that the viewer watches, by name; each single operation on the dict is atomic
        self.watching: dict[str, _Watching] = {}

    @property
    def is_behind(self) -> bool:
        """Whether earlier messages still wait in the viewer's queue, so that it has no use to send more."""
        return self.session._outbox.is_blocked

    def send(self, text: str) -> bool:
        return not self.is_behind and self.session.send(text)


class _Term:
    """The two common threads, from the first viewer to the last. Only these threads use the times in it."""

    def __init__(self, serve_news: Callable[[_Term], None], serve_lists: Callable[[_Term], None]) -> None:
        self.done, self.wake, self.wake_lists = Event(), Event(), Event()
        # when each kind of message is due, by the monotonic clock
        self.sample_at = self.lists_at = self.events_at = 0.0
        self._threads = [
            Thread(target=self._run, args=(serve_news,), name="wsthreads-dashboard", daemon=True),
            Thread(target=self._run, args=(serve_lists,), name="wsthreads-dashboard-lists", daemon=True),
        ]

    def _run(self, serve: Callable[[_Term], None]) -> None:
        keep_running(partial(serve, self), pause=self.done.wait)

    def start(self) -> None:
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:  # no thread can be started now
            self.end()
            raise

    def end(self) -> None:
        """End the two threads. Waits for at most `JOIN_S` for each."""
        self.done.set()
        self.wake.set()
        self.wake_lists.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(JOIN_S)


class Live:
    """The handler of the page's endpoint. Any thread.

    `endpoints` returns the endpoints to show, and `workers` makes the lists about them. `specify` returns more fields
    for the hello, the first message to a page.
    """

    def __init__(
        self,
        endpoints: Callable[[], tuple[Endpoint, ...]],
        workers: Workers,
        specify: Callable[[], dict[str, Any]],
        events: Events,
        sampler: Sampler,
        access: Access,
    ) -> None:
        self._workers = workers
        self._actions = Actions(endpoints)
        self._specify = specify
        self._events = events
        self._sampler = sampler
        self._access = access
        self._started = time()
        # guards _pid, _viewers and _term; nothing under it is slow, except for the start of a thread
        self._lock = Lock()
        self._pid = os.getpid()
        self._viewers: dict[Session, _Viewer] = {}
        self._term: _Term | None = None
        self._has_news = False  # whether new events have woken the thread of the news
        events.on_event = weakly(self._on_event)  # loggers refer to `events`, but must not keep this object alive

    # Called in the thread of a viewer

    def on_handshake(self, request: Request) -> str | None:
        complaint = self._access.complaint(request.environ, offered_token(request.subprotocols))
        if complaint:
            raise HandshakeRefused(403, complaint)
        return SUBPROTOCOL if SUBPROTOCOL in request.subprotocols else None

    def on_open(self, session: Session) -> None:
        with self._lock:
            if self._pid != os.getpid():  # after a fork, the threads and the viewers are the parent's
                self._pid, self._viewers, self._term = os.getpid(), {}, None
            self._viewers[session] = _Viewer(session)
            if self._term is None:
                term = _Term(self._serve_news, self._serve_lists)
                term.start()
                self._term = term
        self._wake()

    def on_message(self, session: Session, message: str | bytes) -> None:
        try:
            request = parse(message)
            text = self._do(session, request)
        except Mistake as mistake:
            _answer(session, mistake.request, str(mistake), ok=False)
        else:
            if request.request is not None:
                _answer(session, request.request, text, ok=True)

    def on_close(self, session: Session) -> None:
        with self._lock:
            self._viewers.pop(session, None)
            if self._viewers or self._term is None:
                return
            term, self._term = self._term, None
        term.end()

    def _do(self, session: Session, request: PageRequest) -> str:
        """Do what a viewer asks for. Returns the text of the answer. Raises `Mistake`."""
        viewer = self._viewers[session]
        if isinstance(request, Watch):
            viewer.watching[request.list] = _Watching(request)
            self._wake_lists()
        elif isinstance(request, Unwatch):
            viewer.watching.pop(request.list, None)
        else:
            text = self._actions.do(request, session.remote_addr)
            if not isinstance(request, (Broadcast, ReadMessage, Send)):
                for watching in list(viewer.watching.values()):
                    watching.due = 0.0  # so that the viewer sees the change at once
                self._wake_lists()
            return text
        return ""

    def _wake(self) -> None:
        term = self._term
        if term is not None:
            term.wake.set()

    def _wake_lists(self) -> None:
        term = self._term
        if term is not None:
            term.wake_lists.set()

    def _on_event(self) -> None:
        """Note that there is a new event. Called in the thread that logs.

        Many events wake the thread of the news only once for each message that it sends.
        """
        if not self._has_news:
            self._has_news = True
            self._wake()

    def _all_viewers(self) -> list[_Viewer]:
        with self._lock:
            return list(self._viewers.values())

    # Called in the thread of the news

    def _serve_news(self, term: _Term) -> None:
        while not term.done.is_set():
            viewers = self._greeted(term, self._all_viewers())
            self._send_sample(term, viewers)
            due = min(term.sample_at, self._send_events(term, viewers))
            term.wake.wait(max(0.0, due - monotonic()))
            term.wake.clear()

    def _greeted(self, term: _Term, viewers: list[_Viewer]) -> list[_Viewer]:
        """Send a hello to new viewers, and to all viewers if it has changed.

        Returns the viewers that have got a hello.
        """
        fields = self._specification()
        specification = _encoded(fields)
        hello = ""
        for viewer in viewers:
            if viewer.specification != specification:
                hello = hello or _encoded({**fields, "history": self._sampler.history()})
                if viewer.send(hello):
                    viewer.specification = specification
                    term.wake_lists.set()
        return [viewer for viewer in viewers if viewer.specification]

    def _specification(self) -> dict[str, Any]:
        return {
            "type": "hello",
            "python": python_text(),
            "pid": os.getpid(),
            "started": self._started,
            "host": socket.gethostname(),
            "interval_s": INTERVAL_S,
            **self._specify(),
        }

    def _send_sample(self, term: _Term, viewers: list[_Viewer]) -> None:
        now = monotonic()
        if now < term.sample_at:
            return
        began = thread_time()
        sample = self._sampler.take(INTERVAL_S / 2)
        if sample is not None:
            text = _encoded(sample)
            for viewer in viewers:
                viewer.send(text)
        interval_s = max(INTERVAL_S, SAMPLES_SHARE * (thread_time() - began))
        term.sample_at = max(term.sample_at + interval_s, now + interval_s / 2)

    def _send_events(self, term: _Term, viewers: list[_Viewer]) -> float:
        """Send new events, if a message with events is due.

        Returns when the next one is due, by the monotonic clock.
        """
        self._has_news = False
        newest = self._events.newest
        waiting = [viewer for viewer in viewers if viewer.events_seen != newest and not viewer.is_behind]
        if not waiting:
            return float("inf")
        now = monotonic()
        if now < term.events_at:
            self._has_news = True
            return term.events_at
        term.events_at = now + EVENTS_INTERVAL_S
        for seen in {viewer.events_seen for viewer in waiting}:
            events, newest, dropped = self._events.since(max(0, seen))
            if seen < 0:
                dropped = 0  # these events were dropped before the page was opened
            text = _encoded({"type": "events", "events": events, "dropped": dropped})
            for viewer in waiting:
                if viewer.events_seen == seen and viewer.send(text):
                    viewer.events_seen = newest
        if any(viewer.events_seen != self._events.newest and not viewer.is_behind for viewer in waiting):
            self._has_news = True  # some events were too many for this message
            return term.events_at
        return float("inf")

    # Called in the thread of the lists

    def _serve_lists(self, term: _Term) -> None:
        while not term.done.is_set():
            due = self._send_lists(term, [viewer for viewer in self._all_viewers() if viewer.specification])
            term.wake_lists.wait(None if due == float("inf") else max(0.0, due - monotonic()))
            term.wake_lists.clear()

    def _send_lists(self, term: _Term, viewers: list[_Viewer]) -> float:
        """Send the lists that are due. Returns when the next list is due, by the monotonic clock."""
        now = monotonic()
        if now >= term.lists_at:
            began = thread_time()
            for viewer in viewers:
                for watching in list(viewer.watching.values()):
                    if watching.due <= now and not viewer.is_behind:
                        self._send_list(viewer, watching)
            term.lists_at = now + LISTS_SHARE * (thread_time() - began)
        due = (watching.due for viewer in viewers for watching in list(viewer.watching.values()))
        return max(term.lists_at, min(due, default=float("inf")))

    def _send_list(self, viewer: _Viewer, watching: _Watching) -> None:
        watching.due = monotonic() + LIST_INTERVAL_S
        try:
            content = self._workers.list(watching.watch)
        except BaseException as error:  # raised by values in the attributes of sessions; other lists are not affected
            watching.due = float("inf")
            text = f"the list of {watching.watch.list} failed (see the log); request it again to retry"
            log.error("%s", text, exc_info=exc_info_of(error))
            _answer(viewer.session, None, text, ok=False)
            return
        text = _encoded(content)
        if text != watching.sent and viewer.send(text):
            watching.sent = text
        if content.get("gone"):
            watching.due = float("inf")


def _encoded(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def _answer(session: Session, request: int | None, text: str, *, ok: bool) -> None:
    session.send(_encoded({"type": "answer", "request": request, "ok": ok, "text": text}))
