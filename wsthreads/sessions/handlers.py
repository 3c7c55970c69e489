"""What a handler is, and the Python one.

A *handler* is what the user writes: any of `on_handshake`, `on_open`, `on_message`, `on_close`, `on_error`. An
endpoint talks to it through `Handler`, which hides the language: `PythonHandler` calls the functions in the
connection's own thread, `wsthreads.javascript.ScriptHandler` has them run by the script's isolate.
"""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

from wsthreads.errors import CloseCode, HandlerError, HandshakeRefused, MessageTypeError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.failures import exc_info_of
from wsthreads.monitoring.logs import log_context, printable
from wsthreads.sessions.generators import Place, kind_of, returned, unwrapped
from wsthreads.sessions.sources import did_you_mean
from wsthreads.sessions.verdicts import BadVerdict, Verdict, refused_by, verdict_of
from wsthreads.threads import forks

if TYPE_CHECKING:
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.protocol.handshake import Request
    from wsthreads.protocol.readers import Reader
    from wsthreads.rooms.presence import PresenceChanges
    from wsthreads.rooms.rooms import Room
    from wsthreads.sessions.session import Session

__all__ = ["HOOKS", "Handler", "PythonHandler"]

log = get_logger(__name__)

#: The functions that a handler may have, in Python's spelling.
HOOKS = ("on_handshake", "on_open", "on_message", "on_close", "on_error", "on_presence")


def _nobody(error: BaseException | str) -> None:
    """What is told of failures where nobody wants to know."""


class NotRun(HandlerError):
    """A function of a handler that is, or has returned, a generator or a coroutine; `place` is where that is."""

    def __init__(self, message: str, hook: str, place: Place) -> None:
        super().__init__(message, hook)
        self.path, self.line = place


class Handler(ABC):
    """The endpoint's view of a handler.

    One thread at a time, the session's own, calls `handshake`, `open`, `message`, `catch_up`, `close` of one session,
    in that order; different sessions' calls come concurrently. `open` and `message` may return before the user's
    function has run, but its calls keep their order and never overlap. No user error gets out of a method, but for
    `HandshakeRefused` out of `handshake`. Those that are not abstract are for handlers that need them.
    """

    #: For logs and pages: the script's file name, the class or the module.
    name: str
    #: Those of `HOOKS` that there are.
    hooks: frozenset[str]
    #: Where it is served, for logs. Set by the endpoint.
    endpoint_path = ""
    #: Told, in any thread, of each failure of the user's code after it was logged: the exception, or a script's text.
    on_failure: Callable[[BaseException | str], None] = staticmethod(_nobody)

    def use_rooms(self, room: Callable[[str], Room]) -> None:  # noqa: B027
        """Told by the endpoint, once and before anything else: how to get a handle on one of its rooms."""

    def start(self) -> None:  # noqa: B027
        """Get what the handler needs in this process (a thread, an interpreter). Idempotent, any thread."""

    def stop(self, timeout_s: float) -> None:  # noqa: B027
        """Give back what `start` got, after at most `timeout_s`. Called once, when no session is left."""

    @abstractmethod
    def handshake(self, request: Request, session_id: str) -> Verdict:
        """Let a client in, or raise `HandshakeRefused`. Called before the 101; `session_id` is its future one.

        For a client that is let in only to be closed (`Verdict.refusal`) nothing else is called.
        """

    def abandon(self, session_id: str) -> None:  # noqa: B027
        """Forget what `handshake` kept for a client that was let in and then never opened a session."""

    @abstractmethod
    def open(self, session: Session) -> None:
        """`on_open`. If it fails, the session is closed with 1011."""

    @abstractmethod
    def message(self, session: Session, message: str | bytes) -> None:
        """`on_message`. May block while earlier messages of the session wait, which slows its reading down."""

    def reader(self, session: Session, descriptor: int) -> Reader | None:
        """What reads the session's messages without Python, or None where `message` is to get them all.

        `descriptor` is the socket, -1 if it must not be read like that. Called once, after `open`.
        """
        return None

    def catch_up(self, session: Session) -> None:  # noqa: B027
        """Return when the messages handed over so far have been handled: the client has ended the session."""

    def attributes(self, session: Session) -> dict[str, Any]:
        """What the handler remembers of a session: a copy. Any thread; waits for a moment at most.

        Raises `IsolateError` where a script cannot tell just now.
        """
        return dict(session.attributes)

    def settle(self, timeout_s: float) -> None:  # noqa: B027
        """Return when all that was handed over so far has been done, or after `timeout_s`: for tests."""

    def heap_bytes(self) -> int | None:
        """What the objects of a script take; None where there is none, or nobody knows. Does not block."""
        return None

    def presence(self, room: Room, changes: PresenceChanges) -> str | bytes | None:
        """`on_presence`: what to send to the members of the room in this process, or None.

        One call at a time, by a thread of the endpoint, if `hooks` has ``on_presence``. May block.
        """
        return None

    @abstractmethod
    def close(self, session: Session, code: int, reason: str) -> None:
        """`on_close`. Returns when the user's function has, or never will. The session is not open any more."""


class PythonHandler(Handler):
    """Calls the functions of `target`, an instance of a class or a module, in the session's own thread.

    Whatever a function raises ends that call and nothing else, be it no `Exception`: SystemExit, KeyboardInterrupt,
    GeneratorExit, `asyncio.CancelledError`. The thread is the WSGI server's, and gunicorn's worker would end with it.
    A process that a function has forked ends where the function does.

    Raises `HandlerError` if `target` has none of `HOOKS`, or one that cannot be called as it will be.
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
                raise _not_run(f"{self.name}.{hook} is {runs_nothing}", hook, function, in_file=kind is target)
            _check_signature(self.name, hook, function)
            if hook == "on_close":
                self._close_arguments = _extra_arguments(function)
            self._calls[hook] = partial(metrics.histogram(hook).call, function)
        if not self._calls:
            raise _without_functions(self.name, target)
        self.hooks = frozenset(self._calls)
        if not isinstance(target, ModuleType):  # of a module, `checks.remarks_on` says so, with the line
            _warn_of_misspelt(self.name, dir(target), self.hooks)
        self._on_message = self._calls.get("on_message")
        self._logged_once: set[str] = set()  # hooks that have returned what runs nothing

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
            except HTTPException as error:  # werkzeug's, and so of Flask's abort()
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
        if function is not None and not self._call("on_open", function, session):
            session.close(CloseCode.INTERNAL_ERROR, "on_open failed")

    def message(self, session: Session, message: str | bytes) -> None:
        function = self._on_message
        if function is not None:
            fork = forks.number
            try:  # for each message, so not by _call
                result = function(session, message)
                if fork != forks.number:
                    forks.leave(None)
                if result is not None:
                    self._check_returned("on_message", result)
            except BaseException as error:
                if fork != forks.number:
                    forks.leave(error)
                self._failed("on_message", session, error)

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
            if answer is None or isinstance(answer, (str, bytes)):
                return answer
            self._check_returned("on_presence", answer)
            if isinstance(answer, (bytearray, memoryview)):
                return bytes(answer)
            kind = type(answer).__name__
            raise MessageTypeError(f"on_presence returns a message (str or bytes) or None, not {kind}; try json.dumps")
        except BaseException as error:
            if fork != forks.number:
                forks.leave(error)
            environ = {"PATH_INFO": self.endpoint_path.encode().decode("latin-1")}
            self._log("on_presence", f"in room {room.name!r:.80}", environ, error)
            self._count(error)
            return None

    def _call(self, hook: str, function: Callable[..., Any], session: Session, *arguments: Any) -> bool:
        """Call the user's function. True if it returned."""
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
            return False
        return True

    def _failed(self, hook: str, session: Session, error: BaseException) -> None:
        """Log, count and report what the user's function has raised."""
        self._log(hook, f"in session {session.id}", session.request.environ, error)
        self._count(error)
        on_error = self._calls.get("on_error")
        if on_error is not None and hook != "on_error":
            self._call("on_error", on_error, session, error)

    def _check_returned(self, hook: str, result: object) -> None:
        """Raise `NotRun` where a function has returned something in place of running."""
        found = returned(result)
        if found is not None:
            kind, place = found
            message = f"{self.name}.{hook} returned {kind}, whose body never runs; handlers are plain functions"
            raise NotRun(f"{message} ({place.file}:{place.line})", hook, place)

    def _log(self, hook: str, where: str, environ: dict[str, Any], error: BaseException) -> None:
        """Log what the user's function has raised; `NotRun` once for each hook, since every call raises it."""
        context = log_context(environ, error=error)
        kind = type(error)  # and not isinstance, which asks the error
        if issubclass(kind, BadVerdict):  # whose stack is ours
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


#: What each function is called with. Those of `on_close` behind the session may be left out.
_ARGUMENTS = {
    "on_handshake": ("request",),
    "on_open": ("session",),
    "on_message": ("session", "message"),
    "on_close": ("session", "code", "reason"),
    "on_error": ("session", "error"),
    "on_presence": ("room", "changes"),
}


def _name_of(kind: type | ModuleType) -> str:
    """What logs call a handler: its class or its module, and one that is a file of no package by its file."""
    file = getattr(kind, "__file__", None) if isinstance(kind, ModuleType) else None  # one made in memory has none
    return os.path.basename(file) if file and "." not in kind.__name__.removesuffix(".py") else kind.__name__


def _not_run(what: str, hook: str, function: Callable[..., Any], *, in_file: bool) -> HandlerError:
    """The error for a function whose call runs nothing. With its place, unless `in_file`: whoever reads that knows."""
    message = f"{what}, whose body never runs; handlers are plain functions"
    code = getattr(unwrapped(function), "__code__", None)
    if in_file or code is None:
        return HandlerError(message, hook)
    return NotRun(f"{message} ({code.co_filename}:{code.co_firstlineno})", hook, Place.of(code))


def _check_signature(name: str, hook: str, function: Callable[..., Any]) -> None:
    """Raise `HandlerError` for a function that cannot be called as it will be."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # a decorator may add arguments
    except (TypeError, ValueError):  # a callable that does not tell
        return
    arguments = _ARGUMENTS[hook]
    least = 1 if hook == "on_close" else len(arguments)
    for count in range(least, len(arguments) + 1):
        try:
            signature.bind(*arguments[:count])
        except TypeError:
            continue
        return
    shown = [f"{hook}({', '.join(arguments[:count])})" for count in range(least, len(arguments) + 1)]
    parameters = signature.replace(return_annotation=signature.empty)
    raise HandlerError(f"{name}.{hook}{parameters} cannot be called as {' or '.join(shown)}", hook)


def _without_functions(name: str, target: object) -> HandlerError:
    message = f"{name} has none of the handler functions {', '.join(HOOKS)}"
    if isinstance(target, (str, os.PathLike)):
        return HandlerError(
            f"a handler is a class, an object or a module, not the name of a file, {os.fspath(target)!r:.100}: "
            "add_script(path, file) serves a script, create_app(file) any handler file"
        )
    if inspect.isroutine(target):
        written = getattr(target, "__name__", name)
        return HandlerError(
            f"{written} is a function; a handler is a class, an object or a module that has some of the functions "
            f"{', '.join(HOOKS)}: class {written.title()}: def on_message(self, session, message): …"
        )
    for about in dir(target):
        meant = did_you_mean(about, HOOKS)
        if meant is not None:
            return HandlerError(f"{message}, but {about}; did you mean {meant}?", about)
    return HandlerError(message)


def _warn_of_misspelt(name: str, names: Iterable[str], hooks: Container[str]) -> None:
    """Say which methods are nearly called like one of `HOOKS` that is missing."""
    missing = [hook for hook in HOOKS if hook not in hooks]
    for written in names:
        meant = did_you_mean(written, missing)
        if meant is not None:
            log.warning("%s.%s is never called; did you mean %s?", name, written, meant)


def _extra_arguments(on_close: Callable[..., Any]) -> int:
    """How many of code and reason `on_close` takes behind the session: ``on_close(session)`` may be written too."""
    try:
        parameters = inspect.signature(on_close).parameters.values()
    except (TypeError, ValueError):  # a callable that does not tell: give it all
        return 2
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    named = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    return max(0, min(2, named - 1))
