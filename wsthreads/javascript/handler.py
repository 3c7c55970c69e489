"""`ScriptHandler`: a JavaScript file as a `Handler`. `check_script`: checks such a file for `wsthreads check`."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.errors import CloseCode, CloseCodeError, HandshakeRefused, IsolateError, ScriptError
from wsthreads.javascript.engine import JavaScriptError
from wsthreads.javascript.environment import Environment
from wsthreads.javascript.isolate import Isolate
from wsthreads.javascript.values import changes_for_script
from wsthreads.monitoring.logs import log_context, printable
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.readers import Reader
from wsthreads.sessions.handshake_results import BadVerdict, Refusal, Verdict, verdict_of
from wsthreads.sessions.interface import NO_SCRIPT_HANDLER, Handler
from wsthreads.threads.restarts import Restarts

if TYPE_CHECKING:
    from types import ModuleType

    from wsthreads.config import Config
    from wsthreads.javascript.exports import Exports
    from wsthreads.protocol.handshake import Request
    from wsthreads.rooms.handles import Room
    from wsthreads.rooms.mailboxes import RoomCall
    from wsthreads.rooms.presence import PresenceChanges
    from wsthreads.rooms.rooms import Rooms
    from wsthreads.sessions.interface import Answer
    from wsthreads.sessions.session import Session

__all__ = ["ScriptHandler", "ScriptInfo", "check_script"]

#: The longest time that `check_script` waits for promise jobs that the top level of the script has begun.
CHECK_SETTLE_S = 1.0

#: At most this many calls for rooms are given to the isolate together.
MAX_CALLS = 1000


class _Life:
    """The state of a handler in one process: the isolate, and a lock. A forked process makes a new one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards changes of the attributes below
        self.isolate: Isolate | None = None
        self.restarts = Restarts()
        self.not_before = 0.0  # when the next isolate may be started, on the monotonic clock


def _release(lives: dict[int, _Life]) -> None:
    """The finalizer of a handler. It ends the handler's isolate in this process."""
    life = lives.get(os.getpid())
    if life is not None and life.isolate is not None:
        life.isolate.release()


def _teller(handler: ScriptHandler) -> Callable[[str], None]:
    """Returns a function that reports failures to the handler.

    The function has only a weak reference to the handler, because the isolate keeps the function.
    """
    reference = weakref.ref(handler)

    def tell(text: str) -> None:
        handler = reference()
        if handler is not None:
            handler.on_failure(text)

    return tell


class ScriptHandler(Handler):
    """The functions that the ES module at `path` exports. The isolate of this process runs them, one at a time.

    Call `start` in each process. Further calls start a new isolate if the last one has died, and do nothing otherwise.
    `hooks` is empty until the first call. `env` has the names and texts that the script may import as `env`.
    """

    has_queue = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Config,
        metrics: Metrics,
        modules: Mapping[str, ModuleType] | None = None,
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.name = os.path.basename(self.path)
        self.hooks = frozenset()
        self.room_batch = MAX_CALLS
        self._config = config
        self._metrics = metrics
        self._modules = modules
        self._env = Environment(env)
        self._log = self._env.mask.logger(__name__)
        self._rooms: Rooms[Any] | None = None
        # By process id. A forked process leaves its parent's `_Life` alone: only a thread of the parent can free it.
        self._lives: dict[int, _Life] = {}
        # The id and the life of the process that started last. Each message reads this. Without a GIL, a `get` of the
        # dict would be slow, see `StripedDict`.
        self._process_life: tuple[int, _Life | None] = (0, None)
        weakref.finalize(self, _release, self._lives).atexit = False

    def use_rooms(self, rooms: Rooms[Any]) -> None:
        self._rooms = rooms

    def start(self) -> None:
        """Load the script. Blocks for as long as its top level runs, at most `Config.script_timeout_s`.

        Raises `ScriptError` if the script does not load, `HandlerError` if it has no handler function, and
        `IsolateError` if no interpreter can be made, or if the last ones died too soon. Raises `ConfigError` if the
        setting `allow_net` needs a package that is not installed.
        """
        process, life = self._process_life
        if life is None or process != os.getpid():
            life = self._lives.setdefault(os.getpid(), _Life())
            self._process_life = os.getpid(), life
        if life.isolate is not None and life.isolate.is_alive:
            return
        with life.lock:
            if life.isolate is not None and life.isolate.is_alive:
                return
            if not os.path.isfile(self.path):
                raise ScriptError("there is no such file", self.path)
            is_again = life.isolate is not None
            self._pace_restart(life)
            isolate = Isolate(
                self.path,
                self._config,
                self._metrics,
                on_failure=_teller(self),
                rooms=self._rooms,
                modules=self._modules,
                env=self._env,
            )
            exports = isolate.start()
            life.isolate = isolate
            self._use(exports)
            if is_again and self._rooms is not None:  # the old isolate's state of rooms is lost
                self._rooms.ownership.restart()

    def _pace_restart(self, life: _Life) -> None:
        """Let a script that has died start again at once. If it keeps dying, the pauses get longer."""
        if life.isolate is not None and life.isolate.has_died:
            life.isolate = None
            life.not_before = monotonic() + life.restarts.next_pause_s()
        left = life.not_before - monotonic()
        if left > 0:
            raise IsolateError(f"{self.name} has died several times; it can start again in {left:.2f} s")

    def stop(self, timeout_s: float) -> None:
        """Handle queued events for at most `timeout_s`, and then free the interpreter."""
        isolate = self._isolate
        if isolate is not None:
            isolate.stop(timeout_s)

    def reload(self) -> None:
        """Load the script's current files, and call the new functions from now on, also for existing sessions.

        The interpreter stays. So sessions keep their attributes, and `globalThis` keeps its properties. The variables
        of modules are initialized again. Timers end if the old top level has set them, directly or in a timer's
        callback. Timers that a session's call has set stay. The memory of the old modules is not freed: reloading is
        for development. Raises like `start`; then the old functions and timers stay, and those of the new version end.
        """
        if not os.path.isfile(self.path):
            raise ScriptError("there is no such file", self.path)
        isolate = self._isolate
        if isolate is None or not isolate.is_alive:
            self.start()
        else:
            self._use(isolate.load())

    def _use(self, exports: Exports) -> None:
        self.hooks, self.tick_rate = exports.hooks, exports.tick_rate
        self.on_loaded()

    def files(self) -> frozenset[str]:
        """The paths of the script's files that were loaded so far, and of missing imports."""
        isolate = self._isolate
        return frozenset() if isolate is None else isolate.files

    def handshake(self, request: Request, session_id: str) -> Verdict:
        if "on_handshake" not in self.hooks:
            return Verdict(attributes=request.attributes)
        isolate = self._isolate
        if isolate is None:
            raise HandshakeRefused(503, "the handler is not running", cause="handler_down")
        try:
            answer = isolate.handshake(request, session_id)
            with self._env.mask.in_errors():
                verdict = self._verdict(answer, request)
        except BadVerdict as error:
            isolate.forget(session_id)
            text = printable(" ".join(str(error).split()))
            self._log.error("%s", text, extra=log_context(request.environ))
            self._metrics.add("handler_errors")
            self.on_failure(text)
            raise HandshakeRefused(500, "the handler failed", cause="handler_failed") from error
        except HandshakeRefused:
            isolate.forget(session_id)
            raise
        if verdict.refusal is not None:
            isolate.forget(session_id)
        return verdict

    def _verdict(self, answer: Any, request: Request) -> Verdict:
        """The decision of onHandshake. A value that is not plain JSON comes as a list (`inWords` in loop.js)."""
        what = f"{self.name}: onHandshake"
        if not isinstance(answer, (list, tuple)):
            shown = json.dumps(answer, ensure_ascii=False)
        else:
            shown, *close = answer
            answer = ...
            if close:
                code, reason, others = close
                if others:
                    names = ", ".join(others)
                    more = f"which has more than close and reason: {names:.100}"
                    raise BadVerdict(f"{what} returned {shown:.200}, {more}")
                try:
                    answer = Refusal(code, reason)
                except CloseCodeError as error:
                    raise BadVerdict(f"{what} returned {shown:.200}: {error}") from None
        return verdict_of(answer, request, what, shown=shown, refusal="{ close: code, reason }")

    def abandon(self, session_id: str) -> None:
        isolate = self._isolate
        if isolate is not None and ("on_handshake" in self.hooks or isolate.has_session(session_id)):
            isolate.forget(session_id)

    def open(self, session: Session) -> None:
        try:
            isolate = self._isolate
            if isolate is None:
                raise IsolateError(f"{self.name} was not started in this process")
            isolate.open(session)
        except IsolateError as error:
            context = log_context(session.request.environ)
            self._log.error("session %s cannot be opened: %s", session.id, error, extra=context)
            session.close(CloseCode.INTERNAL_ERROR, "handler failed")

    def message(self, session: Session, message: str | bytes) -> None:
        isolate = self._isolate
        if isolate is not None and "on_message" in self.hooks:
            isolate.message(session, message)

    def request(self, session: Session, message: str | bytes, answer: Answer) -> None:
        isolate = self._isolate
        if isolate is None or "on_request" not in self.hooks:
            answer.failed(NO_SCRIPT_HANDLER)
        else:
            isolate.request(session, message, answer)

    def suspend(self, session: Session) -> None:
        """Like `suspend` of `Handler`. The script keeps the return value of onSuspend."""
        isolate = self._isolate
        if isolate is not None:
            isolate.suspend(session)

    def resume(self, session: Session) -> None:
        isolate = self._isolate
        if isolate is not None:
            isolate.resume(session)

    def export_attributes(self, session: Session, returned: Any) -> str:
        """Like `export_attributes` of `Handler`. Raises `IsolateError` if the script does not answer in time."""
        isolate = self._isolate
        if isolate is None:
            raise IsolateError(f"{self.name} was not started in this process")
        with self._env.mask.in_errors():
            return isolate.export_attributes(session)

    def adopt(self, session: Session, attributes: dict[str, Any]) -> None:
        isolate = self._isolate
        if isolate is None:
            raise IsolateError(f"{self.name} was not started in this process")
        isolate.adopt(session, attributes)

    def reader(
        self,
        session: Session,
        descriptor: int,
        *,
        due: Callable[[], tuple[int, int] | None] | None = None,
    ) -> Reader | None:
        isolate = self._isolate
        return None if isolate is None or descriptor < 0 else isolate.reader(session, descriptor, due)

    def catch_up(self, session: Session, timeout_s: float | None = None) -> bool:
        isolate = self._isolate
        return isolate is None or isolate.catch_up(session, timeout_s)

    def attributes(self, session: Session) -> dict[str, Any]:
        """The attributes that the script has set: texts, JSON values, and any other value as text."""
        isolate = self._isolate
        if isolate is None:
            raise IsolateError(f"{self.name} was not started in this process")
        return {name: text if is_text else _parsed(text) for name, is_text, text in isolate.attributes(session.id)}

    def shown(self, text: str) -> str:
        return self._env.mask(text)

    def settle(self, timeout_s: float) -> bool:
        isolate = self._isolate
        return isolate is None or isolate.settle(timeout_s)

    def presence(self, room: Room, changes: PresenceChanges) -> str | bytes | None:
        isolate = self._isolate
        if isolate is None:
            return None
        try:
            return isolate.presence(room.name, changes_for_script(changes))
        except (IsolateError, JavaScriptError):  # the isolate has ended, or the failure was logged
            return None

    def call_rooms(self, calls: Sequence[RoomCall]) -> None:
        isolate = self._isolate
        if isolate is not None:
            isolate.call_rooms(calls)
        else:
            for call in calls:
                call.done("down")

    def heap_bytes(self) -> int | None:
        isolate = self._isolate
        return None if isolate is None or not isolate.is_alive else isolate.heap_bytes()

    def probe(self) -> None:
        isolate = self._isolate
        if isolate is not None and isolate.is_alive:
            isolate.probe()

    def recent_waits(self) -> tuple[float, float] | None:
        isolate = self._isolate
        return None if isolate is None else isolate.recent_waits()

    def close(self, session: Session, code: int, reason: str) -> None:
        isolate = self._isolate
        if isolate is not None:
            isolate.close(session, code, reason)

    @property
    def _isolate(self) -> Isolate | None:
        process, life = self._process_life
        return life.isolate if life is not None and process == os.getpid() else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@dataclass(frozen=True, slots=True)
class ScriptInfo:
    """The result of `check_script`: all exported names, and the handler functions in Python's spelling.

    `declarations` are the texts of the type declarations for imported Python files, by the paths to write them to.
    `remarks` are about parameters and results in these files that cannot cross to the script.
    """

    path: str
    exports: tuple[str, ...]
    hooks: frozenset[str]
    declarations: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def check_script(
    path: str | os.PathLike[str],
    config: Config,
    *,
    env: Mapping[str, str] | None = None,
    modules: Mapping[str, ModuleType] | None = None,
) -> ScriptInfo:
    """Load the script in an isolate of its own, to check it. The script's top level runs.

    Raises `ScriptError` (file, line, column), `HandlerError`, `IsolateError`, `ConfigError` like `ScriptHandler.start`.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ScriptError("there is no such file", path)
    isolate = Isolate(path, config, Metrics(), env=Environment(env), modules=modules)
    exports = isolate.start()
    isolate.settle(CHECK_SETTLE_S)  # the promise jobs of the top level may print, or fail
    isolate.stop(0)
    return ScriptInfo(path, exports.names, exports.hooks, isolate.declarations(), isolate.remarks())
