"""Moves sessions to this process when their clients come back here. `handover` explains how a session moves."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from wsthreads.brokers.directory import is_session_id
from wsthreads.brokers.exports import free
from wsthreads.brokers.missed_messages import Gap
from wsthreads.brokers.passages import Passages
from wsthreads.brokers.session_scripts import CLAIM, DROP, LOOK, SEEN_BYTES, claimed
from wsthreads.brokers.session_state import ENDED, SessionState, StateError, decode_end, decode_state
from wsthreads.errors import BrokerError, CloseCode, counted
from wsthreads.loggers import get_logger
from wsthreads.protocol.encoding import PLAIN, Encoding
from wsthreads.rooms.names import SESSIONS_ROOM
from wsthreads.sessions.moves import BUSY, UNKNOWN, Ended, same_origin

if TYPE_CHECKING:
    from wsthreads.brokers.interface import Link
    from wsthreads.brokers.missed_messages import Replay
    from wsthreads.sessions.moves import Arriving, Claim, Moves

__all__ = ["Imports"]

log = get_logger(__name__)

#: How long this process may take to receive those messages of the rooms that the session already has.
ENTER_S = 2.0

#: How long Redis may take to answer whether it has given a session to this process.
CLAIM_S = 10.0


class Imports:
    """Takes sessions of one endpoint from Redis. Any thread except the reader's."""

    def __init__(
        self,
        path: str,
        link: Link,
        passages: Passages,
        sessions: Moves,
        count: Callable[[str], None],
        max_missed_bytes: int,
    ) -> None:
        self._path = path
        self._link = link
        self._passages = passages
        self._sessions = sessions
        self._count = count
        self._max_missed_bytes = max_missed_bytes
        #: Whether no more sessions are taken.
        self.is_over = False

    def take(self, claim: Claim, request: Any) -> Arriving | str | tuple[int, str] | None:
        """Take a session that is stored in Redis. Returns None if Redis has none. Blocks.

        If the session cannot be resumed, returns why. This is `BUSY` if another process takes the session, a close code
        and a reason, or another word. The client gets the close code and the reason in two cases: a process that has
        ended had closed the session, or the client says that it has received an impossible number of messages.

        Raises `BrokerError` if Redis does not answer.
        """
        call = partial(self._link.call_for_session, self._path, claim.session_id)
        data = call(LOOK)
        if data and data.startswith(b"stuck "):
            is_theirs = any(hmac.compare_digest(each, claim.secret.encode()) for each in data.split()[1:])
            return "elsewhere" if is_theirs else UNKNOWN
        found = self._read(claim.session_id, data)
        if found is None or isinstance(found, str):
            return found
        if isinstance(found, Ended):
            return (found.code, found.reason) if is_told(found, claim) else UNKNOWN
        state, head = found
        why = judge(state, claim)
        if why:
            return why
        arrival, replay = self._take(state, head, call, request, claim.encoding)
        if arrival is None:
            return BUSY
        if replay is None:
            arrival.end(1006, "missed too much")
            return UNKNOWN
        if replay.ending is not None:
            arrival.end(*replay.ending)
        return arrival

    def trace(self, session_id: str) -> bytes:
        """The beginning of the value that Redis has for a session. It changes when the session is stored or taken.

        Raises `BrokerError`.
        """
        return (self._link.call_for_session(self._path, session_id, LOOK) or b"")[:SEEN_BYTES]

    def end(self, entry: bytes, reason: str = "not back in time") -> None:
        """End a session whose client has not come back, unless another process ends the session.

        `entry` is the session's id. If it is not a valid id, only removes the entry from the list of moving sessions.
        """
        session_id = entry.decode("ascii", "replace")
        with suppress(BrokerError):
            if is_session_id(session_id):
                self._end(session_id, reason)
            else:
                self._link.call_for_session(self._path, "", DROP, b"", entry)

    def _end(self, session_id: str, reason: str) -> None:
        call = partial(self._link.call_for_session, self._path, session_id)
        data = call(LOOK) or b""
        found = self._read(session_id, data)
        if not isinstance(found, tuple):  # without the session's state, its on_close cannot be called
            call(DROP, data[:SEEN_BYTES], session_id)
            return
        arrival, _ = self._take(*found, call, None, PLAIN)
        if arrival is not None:
            arrival.end(1006, reason, has_lapsed=True)

    def _read(self, session_id: str, data: bytes | None) -> tuple[SessionState, bytes] | Ended | str | None:
        """Parse a stored value.

        Returns the session's state and the first line of the stored value, or the session's ending. Returns None if the
        value has neither, and `UNKNOWN` if it is malformed.
        """
        if not data or data.startswith((b"taken ", b"retracted ", b"stuck ")):
            return None
        try:
            if data.startswith(ENDED):
                return decode_end(data)
            state, head = decode_state(data)
            if state.id != session_id:
                raise StateError("the state of another session")
        except StateError as error:
            self._count("broker_malformed")
            log.warning("session %s on %s is not resumed: %s", session_id, self._path, error)
            return UNKNOWN
        return state, head

    def _take(
        self, state: SessionState, head: bytes, call: Callable[..., Any], request: Any, encoding: Encoding
    ) -> tuple[Arriving | None, Replay | None]:
        """Take a session. Returns None twice if this process does not get it.

        The second result has the messages that the session has missed. It is None if these are not known.
        """
        passages = self._passages
        arrival = self._sessions.arrive(state, request, encoding)
        session, is_ours = arrival.session, False
        try:
            replay = self._enter(arrival, state)
            is_ours = not self.is_over and self._claim(state.id, head, call)
        except BrokerError as error:
            log.debug("session %s on %s is not taken: %s", state.id, self._path, error)
        finally:
            if not is_ours:
                arrival.drop()
                passages.forget(session)
        if not is_ours:
            return None, None
        frames = [] if replay is None else [encoding.frame(frame) for frame in replay.frames]
        arrival.settle(state.acknowledged, state.frames + frames)
        before = passages.take_presences(session, state.presences)
        self._count("sessions_taken_over")
        # if this fails, the rooms count the session twice, until its client may no longer come back
        with suppress(BrokerError):
            rooms = [name for name in state.positions if name != SESSIONS_ROOM]
            # only now, so that the session's presences in this process come first
            free(self._link, self._path, state.id, rooms, before)
        return arrival, replay

    def _enter(self, arrival: Arriving, state: SessionState) -> Replay | None:
        """Make the session a member of its rooms.

        Returns the messages that the session has missed, or None if these are not known. Raises `BrokerError`.
        """
        try:
            return self._passages.enter(
                arrival.session,
                state.positions,
                on_entered=arrival.appear,
                max_bytes=self._max_missed_bytes,
                timeout_s=ENTER_S,
            )
        except Gap as gap:
            log.warning("session %s on %s ends: %s", state.id, self._path, gap)
            return None

    def _claim(self, session_id: str, head: bytes, call: Callable[..., Any]) -> bool:
        """Ask Redis for a session. Returns whether Redis has given the session to this process.

        Raises `BrokerError` if Redis does not answer this.
        """
        mine = claimed(self._link.process, secrets.token_urlsafe(9))
        deadline, may_be_ours = monotonic() + CLAIM_S, False
        while True:
            try:
                return bool(call(CLAIM, head, mine, session_id))
            except BrokerError as error:
                may_be_ours = may_be_ours or error.is_unknown
                if not may_be_ours:
                    raise
                if monotonic() >= deadline:
                    what = "session %s on %s is lost: Redis does not answer which process has it"
                    log.error(what, session_id, self._path)
                    raise
            sleep(0.2)


def judge(state: SessionState, claim: Claim) -> str | tuple[int, str]:
    """Why a client may not resume a session. Empty if it may.

    If the client says that it has received an impossible number of messages, returns a close code and a reason.
    """
    if not any(hmac.compare_digest(claim.secret, secret) for secret in state.secrets):
        return UNKNOWN
    if state.user != claim.user:
        return "user"
    if not same_origin(state.origin, claim.origin):
        return "origin"
    if state.encoding != claim.encoding.name:
        return "compression"
    if claim.received < state.acknowledged:
        return "counts"
    most = state.acknowledged + len(state.frames)
    if claim.received > most:
        reason = f"{counted(claim.received, 'message')} received, {state.acknowledged} to {most} are possible"
        return CloseCode.PROTOCOL_ERROR, reason
    return ""


def is_told(ended: Ended, claim: Claim) -> bool:
    """Whether a client may be told how a session has ended."""
    is_theirs = any(hmac.compare_digest(claim.secret, secret) for secret in ended.secrets)
    return is_theirs and ended.user == claim.user and same_origin(ended.origin, claim.origin)
