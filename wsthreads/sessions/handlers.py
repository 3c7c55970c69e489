"""The handler in Python.

A *handler* is the user's code: any of the functions in `hooks.HOOKS`. An endpoint uses a handler through the class
`Handler`, which hides the language. `PythonHandler` calls the functions for a session in the connection's own thread,
and the functions for rooms in threads for rooms. `wsthreads.javascript.ScriptHandler` runs the functions in the
script's isolate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

from wsthreads.errors import CloseCode, HandlerError, HandshakeRefused, MessageTypeError, RequestError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.failures import exc_info_of
from wsthreads.monitoring.logs import log_context, printable
from wsthreads.sessions.generators import kind_of, returned
from wsthreads.sessions.handshake_results import BadVerdict, Verdict, refused_by, verdict_of
from wsthreads.sessions.hooks import (
    HOOKS,
    NotRun,
    check_signature,
    extra_arguments,
    not_run,
    tick_rate_of,
    warn_of_misspelt,
    without_functions,
)
from wsthreads.sessions.interface import FAILED, NO_HANDLER, Answer, Handler
from wsthreads.threads import forks

if TYPE_CHECKING:
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.protocol.handshake import Request
    from wsthreads.rooms.handles import Room
    from wsthreads.rooms.mailboxes import RoomCall
    from wsthreads.rooms.presence import PresenceChanges
    from wsthreads.sessions.session import Session

__all__ = ["Handler", "PythonHandler"]

log = get_logger(__name__)


class PythonHandler(Handler):
    """Calls the functions of `target`, an instance of a class or a module, in the session's own thread.

    An exception of a function ends only that call. This includes exceptions that are not an `Exception`: SystemExit,
    KeyboardInterrupt, GeneratorExit, `asyncio.CancelledError`. The thread belongs to the WSGI server, and such an
    exception would end gunicorn's worker. If a function forks the process, the child ends when the function returns.

    Raises `HandlerError` if `target` has none of `HOOKS`, or has a function with a wrong signature.
    """

    def __init__(self, target: object, metrics: Metrics) -> None:
        if isinstance(target, type):
            target = target()
        kind = target if isinstance(target, ModuleType) else type(target)
        self.name = _name_of(kind)
        self._metrics = metrics
        self._close_arguments = 0
        self._calls: dict[str, Callable[..., Any]] = {}
        for hook in HOOKS:
            function = getattr(target, hook, None)
            if function is None:
                continue
            if not callable(function):
                raise HandlerError(f"{self.name}.{hook} must be a function, not {function!r}", hook)
            if (runs_nothing := kind_of(function)) is not None:
                raise not_run(f"{self.name}.{hook} is {runs_nothing}", hook, function, in_file=kind is target)
            check_signature(self.name, hook, function)
            if hook == "on_close":
                self._close_arguments = extra_arguments(function)
            self._calls[hook] = partial(metrics.histogram(hook).call, function)
        if not self._calls:
            raise without_functions(self.name, target)
        self.hooks = frozenset(self._calls)
        self.tick_rate = tick_rate_of(self.name, target, has_ticks="on_tick" in self.hooks)
        if not isinstance(target, ModuleType):  # for a module, `checks.remarks_on` warns, and names the line
            warn_of_misspelt(self.name, dir(target), self.hooks)
        self._on_message = self._calls.get("on_message")
        self._logged_once: set[str] = set()  # hooks for which a `NotRun` was logged

    def handshake(self, request: Request, session_id: str) -> Verdict:
        function = self._calls.get("on_handshake")
        if function is None:
            return Verdict()
        what = f"{self.name}.on_handshake"
        fork = forks.number
        try:
            try:
                answer = function(request)
                if fork != forks.number:
                    forks.leave(None)
            except HTTPException as error:  # an exception of werkzeug, for example from Flask's abort()
                raise refused_by(error, request, what) from error
            if answer is not None:
                self._check_returned("on_handshake", answer)
            return verdict_of(answer, request, what, refusal="Refusal(code, reason)")
        except HandshakeRefused:
            raise
        except BaseException as error:
            if fork != forks.number:
                forks.leave(error)
            self._log("on_handshake", f"for {request.remote_addr}", request.environ, error)
            self._count(error)
            raise HandshakeRefused(500, "the handler failed", cause="handler_failed") from error

    def open(self, session: Session) -> None:
        function = self._calls.get("on_open")
        if function is not None and not self._call("on_open", function, session)[0]:
            session.close(CloseCode.INTERNAL_ERROR, "on_open failed")

    def message(self, session: Session, message: str | bytes) -> None:
        function = self._on_message
        if function is not None:
            fork = forks.number
            try:  # `_call` is inlined, because this runs for each message
                result = function(session, message)
                if fork != forks.number:
                    forks.leave(None)
                if result is not None:
                    self._check_returned("on_message", result)
            except BaseException as error:
                if fork != forks.number:
                    forks.leave(error)
                self._failed("on_message", session, error)

    def request(self, session: Session, message: str | bytes, answer: Answer) -> None:
        function = self._calls.get("on_request")
        if function is None:
            answer.failed(NO_HANDLER)
            return
        fork = forks.number
        try:
            result = function(session, message)
            if fork != forks.number:
                forks.leave(None)
            if result is not None and not isinstance(result, (str, bytes)):
                result = self._message_of("on_request", result)
        except BaseException as error:
            if fork != forks.number:
                forks.leave(error)
            if issubclass(type(error), RequestError):  # isinstance would run code of the error's class
                answer.failed(_text_of(error))
            else:
                answer.failed(FAILED)
                self._failed("on_request", session, error)
            return
        answer.done(result)

    def suspend(self, session: Session) -> Any:
        function = self._calls.get("on_suspend")
        return None if function is None else self._call("on_suspend", function, session)[1]

    def resume(self, session: Session) -> None:
        function = self._calls.get("on_resume")
        if function is not None:
            self._call("on_resume", function, session)

    def close(self, session: Session, code: int, reason: str) -> None:
        function = self._calls.get("on_close")
        if function is not None:
            self._call("on_close", function, session, *(code, reason)[: self._close_arguments])

    def presence(self, room: Room, changes: PresenceChanges) -> str | bytes | None:
        function = self._calls.get("on_presence")
        if function is None:
            return None
        fork = forks.number
        try:
            answer: Any = function(room, changes)
            if fork != forks.number:
                forks.leave(None)
            return self._message_of("on_presence", answer)
        except BaseException as error:
            if fork != forks.number:
                forks.leave(error)
            self._failed_in_room("on_presence", room, error)
            return None

    def _message_of(self, hook: str, answer: Any) -> str | bytes | None:
        """Check that the return value of a function is a message or None.

        Raises `MessageTypeError` for anything else.
        """
        if answer is None or isinstance(answer, (str, bytes)):
            return answer
        self._check_returned(hook, answer)
        if isinstance(answer, (bytearray, memoryview)):
            return bytes(answer)
        kind = type(answer).__name__
        raise MessageTypeError(f"{hook} must return a message (str or bytes) or None, not {kind}; try json.dumps")

    def call_rooms(self, calls: Sequence[RoomCall]) -> None:
        for call in calls:
            function = self._calls.get(call.hook)
            failure = None
            fork = forks.number
            try:
                if function is not None and call.begin():
                    result = function(*call.arguments())
                    if fork != forks.number:
                        forks.leave(None)
                    if result is not None:
                        self._check_returned(call.hook, result)
            except BaseException as error:
                if fork != forks.number:
                    forks.leave(error)
                failure = "failed"
                self._failed_in_room(call.hook, call.room, error)
            call.done(failure)

    def _failed_in_room(self, hook: str, room: Room, error: BaseException) -> None:
        environ = {"PATH_INFO": self.endpoint_path.encode().decode("latin-1")}
        self._log(hook, f"in room {room.name!r:.80}", environ, error)
        self._count(error)

    def _call(self, hook: str, function: Callable[..., Any], session: Session, *arguments: Any) -> tuple[bool, Any]:
        """Call the user's function. Returns whether it has returned (and not raised an exception), and its result."""
        fork = forks.number
        try:
            result = function(session, *arguments)
            if fork != forks.number:
                forks.leave(None)
            if result is not None:
                self._check_returned(hook, result)
        except BaseException as error:
            if fork != forks.number:
                forks.leave(error)
            self._failed(hook, session, error)
            return False, None
        return True, result

    def _failed(self, hook: str, session: Session, error: BaseException) -> None:
        """Log, count and report an exception of the user's function."""
        self._log(hook, f"in session {session.id}", session.request.environ, error)
        self._count(error)
        on_error = self._calls.get("on_error")
        if on_error is not None and hook != "on_error":
            self._call("on_error", on_error, session, error)

    def _check_returned(self, hook: str, result: object) -> None:
        """Raise `NotRun` if a function has returned a generator or a coroutine."""
        found = returned(result)
        if found is not None:
            kind, place = found
            message = f"{self.name}.{hook} returned {kind}, whose body never runs; handlers are plain functions"
            raise NotRun(f"{message} ({place.file}:{place.line})", hook, place)

    def _log(self, hook: str, where: str, environ: dict[str, Any], error: BaseException) -> None:
        """Log an exception of the user's function.

        For each hook, only the first `NotRun` is logged, because each call raises it.
        """
        context = log_context(environ, error=error)
        kind = type(error)  # isinstance would run code of the error's class
        if issubclass(kind, BadVerdict):  # the stack of this error has only frames of wsthreads
            log.error("%s", printable(str(error)), extra=log_context(environ))
        elif not issubclass(kind, NotRun):
            log.error("%s.%s failed %s", self.name, hook, where, exc_info=exc_info_of(error), extra=context)
        elif isinstance(error, NotRun) and hook not in self._logged_once:
            self._logged_once.add(hook)
            place = {"file": error.path, "line": error.line}
            log.error("%s.%s failed %s: %s", self.name, hook, where, error, extra={**context, **place})

    def _count(self, error: BaseException) -> None:
        self._metrics.add("handler_errors")
        self.on_failure(error)


def _name_of(kind: type | ModuleType) -> str:
    """The handler's name in logs: that of its class or module.

    For a module outside of packages, the name of its file.
    """
    # A module made in memory has no file.
    file = getattr(kind, "__file__", None) if isinstance(kind, ModuleType) else None
    return os.path.basename(file) if file and "." not in kind.__name__.removesuffix(".py") else kind.__name__


def _text_of(error: BaseException) -> str:
    """The text of an exception of the user's code."""
    try:
        return str(error)
    except BaseException:
        return FAILED
