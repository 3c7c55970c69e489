"""What a script can do outside of its interpreter: the Python half of the session and room objects, and the console."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wsthreads.javascript import stacks
from wsthreads.javascript.interpreter import Function
from wsthreads.javascript.visits import Visit

if TYPE_CHECKING:
    from wsthreads.javascript.engine import Engine
    from wsthreads.rooms import SessionRoom
    from wsthreads.session import Session

__all__ = ["Effects"]

_TRUE, _FALSE, _NOTHING = b"true", b"false", b"[]"


class Effects:
    """Functions for JavaScript, called in the isolate's thread. They act at once and never wait.

    `visits` is the isolate's table. A session that is not in it has ended: to it, nothing is sent, and nothing happens.
    """

    def __init__(self, visits: Mapping[str, Visit], log: logging.Logger) -> None:
        self._visits = visits
        self._log = log
        self.engine: Engine | None = None

    def functions(self) -> dict[str, Function]:
        return {
            "send": self._send,
            "close": self._close,
            "is_open": self._is_open,
            "rooms": self._rooms,
            "join": self._join,
            "leave": self._leave,
            "broadcast": self._broadcast,
            "broadcast_except": self._broadcast_except,
            "members": self._members,
            "console": self._console,
        }

    def _message(self, text: str | None, is_binary: bool) -> str | bytes:
        """A message as the runtime hands it over: text, or bytes in the engine's parcel, or as text to U+00FF."""
        if text is None:
            return b"" if self.engine is None else self.engine.take_bytes()
        return text.encode("latin-1") if is_binary else text

    def _session(self, visit_id: str) -> Session | None:
        visit = self._visits.get(visit_id)
        return None if visit is None else visit.session

    def _room(self, visit_id: str, name: str) -> SessionRoom | None:
        session = self._session(visit_id)
        return None if session is None else session.room(name)

    def _send(self, message: str | None, is_binary: bool, visit_id: str) -> bytes:
        session = self._session(visit_id)
        return _TRUE if session is not None and session.send(self._message(message, is_binary)) else _FALSE

    def _close(self, visit_id: str, code: int, reason: str) -> None:
        visit = self._visits.get(visit_id)
        if visit is not None:
            visit.close(code, reason)

    def _is_open(self, visit_id: str) -> bytes:
        session = self._session(visit_id)
        return _TRUE if session is not None and session.is_open() else _FALSE

    def _rooms(self, visit_id: str) -> bytes:
        session = self._session(visit_id)
        return _NOTHING if session is None else json.dumps(session.rooms()).encode()

    def _join(self, visit_id: str, name: str) -> None:
        room = self._room(visit_id, name)
        if room is not None:
            room.join()

    def _leave(self, visit_id: str, name: str) -> None:
        room = self._room(visit_id, name)
        if room is not None:
            room.leave()

    def _broadcast(self, message: str | None, is_binary: bool, visit_id: str, name: str) -> None:
        room = self._room(visit_id, name)
        if room is not None:
            room.broadcast(self._message(message, is_binary))

    def _broadcast_except(self, message: str | None, is_binary: bool, visit_id: str, name: str) -> None:
        room = self._room(visit_id, name)
        if room is not None:
            room.broadcast_except(self._message(message, is_binary))

    def _members(self, visit_id: str, name: str) -> bytes:
        room = self._room(visit_id, name)
        return b"0" if room is None else str(room.members()).encode()

    def _console(self, level: int, text: str) -> None:
        self._log.log(level, "%s", stacks.tidy(text) if "<dukpy>" in text else text)
