"""Makes endpoints with their rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsthreads.config import Config
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.writer_threads import WriterThreads
from wsthreads.rooms.history import Limits
from wsthreads.rooms.rooms import Rooms
from wsthreads.sessions.admission import Admission
from wsthreads.sessions.endpoint import Endpoint
from wsthreads.sessions.handlers import Handler
from wsthreads.sessions.session import Session
from wsthreads.threads.drainer import Drainer
from wsthreads.threads.flusher import Flusher
from wsthreads.threads.scheduling import Scheduling

if TYPE_CHECKING:
    from wsthreads.brokers import Link

__all__ = ["EndpointFactory"]


class EndpointFactory:
    """Makes endpoints that share the settings, the limits and the threads of one app."""

    def __init__(
        self,
        config: Config,
        *,
        admission: Admission,
        flusher: Flusher,
        drainer: Drainer,
        writers: WriterThreads,
        scheduling: Scheduling,
        link: Link | None,
    ) -> None:
        self._config = config
        self._shared = {"config": config, "admission": admission, "flusher": flusher, "scheduling": scheduling}
        self._flusher = flusher
        self._drainer = drainer
        self._writers = writers
        self._scheduling = scheduling
        self._link = link

    def make(
        self, path: str, handler: Handler, metrics: Metrics, *, shares_rooms: bool = True, **options: Any
    ) -> Endpoint:
        """Returns a new endpoint.

        `options` are arguments of `Endpoint`, and replace those of the app. With `shares_rooms`, other processes share
        the endpoint's rooms over the broker.
        """
        rooms, session_class = self._make_rooms(path, metrics, shared=shares_rooms)
        if shares_rooms:
            config = self._config
            limits = Limits(config.history_messages, config.history_s, config.max_history_bytes)
            rooms.use_history(self._flusher, limits)
        parts = {**self._shared, **options}
        endpoint = Endpoint(path, handler, metrics=metrics, rooms=rooms, session_class=session_class, **parts)
        if self._link is not None and shares_rooms and self._config.resume_s:
            self._hand_over(endpoint, rooms, self._link, metrics)
        return endpoint

    def _hand_over(self, endpoint: Endpoint, rooms: Any, link: Link, metrics: Metrics) -> None:
        """Let sessions of an endpoint move to other processes."""
        from wsthreads.brokers.handover import Handover  # only an app with a broker needs it

        endpoint.use_handover(
            Handover(
                rooms,
                link,
                endpoint.moves,
                timers=self._flusher,
                count=metrics.add,
                max_missed_bytes=self._config.max_resume_bytes,
            )
        )

    def _make_rooms(self, path: str, metrics: Metrics, *, shared: bool) -> tuple[Rooms[Any], type[Session]]:
        """Returns the rooms of an endpoint, and the class of the sessions in these rooms."""
        parts: dict[str, Any] = {
            "writers": self._writers,
            "max_name_chars": self._config.max_room_name_chars,
            "max_per_session": self._config.max_rooms_per_session,
            "count": metrics.add,
            "scheduling": self._scheduling,
        }
        if self._link is None or not shared:
            return Rooms(self._drainer, **parts), Session
        from wsthreads.brokers.rooms import SharedRooms, SharedSession  # only an app with a broker needs them

        return SharedRooms(path, self._link, self._drainer, **parts), SharedSession
