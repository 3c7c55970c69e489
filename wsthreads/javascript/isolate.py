"""The isolate: a script's interpreter, the one thread that may use it, and the queue of events for this thread.

Guarantees:

- One thread creates, enters and frees the interpreter. It enters the interpreter once, and stays in the runtime's loop,
  which takes its events from `Loop`. So an event needs no compilation and no garbage collection.
- Every event is handled, in the order of its session. If an event is not handled, its session is closed, and the log
  says why (`Loop`).
- A session's events never overlap. While a promise of the session is pending, its later events wait (`Schedule`).
- With the C module, a session's thread reads its messages into the queue without the GIL (`inbox`).
- No call of JavaScript takes longer than `Config.script_timeout_s`, provided that there is an `Engine` to enforce it.
  But a single built-in function cannot be stopped.
- When the thread ends, for any reason, `_bury` ends all sessions and all waits of other threads.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.errors import CloseCode, IsolateError
from wsthreads.javascript.calls import Function
from wsthreads.javascript.engine import Engine, JavaScriptError
from wsthreads.javascript.environment import Environment
from wsthreads.javascript.event_queue import EventQueue
from wsthreads.javascript.exports import Exports
from wsthreads.javascript.fetches import Fetches, Waits
from wsthreads.javascript.host import HostFunctions
from wsthreads.javascript.interpreter import Interpreter, make_interpreter, runtime_source
from wsthreads.javascript.lazy_parts import LazyParts
from wsthreads.javascript.loader import ENTRY, ModuleLoader
from wsthreads.javascript.loop import FIRST_LOAD, STOP, Loop
from wsthreads.javascript.python_calls import PythonCalls
from wsthreads.javascript.python_functions import PythonFunctions
from wsthreads.javascript.quickjs import EngineUnsupported
from wsthreads.javascript.reports import Reports, ignore
from wsthreads.javascript.requests import ScriptRequests
from wsthreads.javascript.schedule import Schedule
from wsthreads.javascript.session_state import Event, SessionStates
from wsthreads.javascript.stacks import Failure
from wsthreads.javascript.web import WebFunctions
from wsthreads.protocol.handshake import MAX_USER_CHARS
from wsthreads.rooms.bans import MAX_BAN_S
from wsthreads.rooms.handles import MAX_ID_CHARS
from wsthreads.rooms.joined import MAX_MEMBERS
from wsthreads.threads.blocking import never_wait
from wsthreads.threads.stack_sizes import start_with_stack

if TYPE_CHECKING:
    from types import ModuleType

    from wsthreads.config import Config
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.rooms.rooms import Rooms

__all__ = ["Isolate"]

#: The stack size of the isolate's thread. QuickJS uses up to 1 MiB. The server may give less to its other threads.
STACK_BYTES = 16 * 1024 * 1024

#: How long the thread may take to end after its running call was interrupted.
GRACE_S = 2.0

#: A function that makes an `Engine`. Tests pass a substitute.
EngineMaker = Callable[[object, str, Callable[[str, Failure], None]], Engine]


class Isolate(EventQueue):
    """Runs the script at `path`, from `start` to `stop`. An isolate cannot be started again. Any thread."""

    def __init__(
        self,
        path: str,
        config: Config,
        metrics: Metrics,
        make_engine: EngineMaker = Engine,
        *,
        on_failure: Callable[[str], None] = ignore,
        rooms: Rooms[Any] | None = None,
        modules: Mapping[str, ModuleType] | None = None,
        env: Environment | None = None,
    ) -> None:
        name = os.path.basename(path)
        self._path = path
        self._make_engine = make_engine
        self._env = env or Environment()
        self._loader = ModuleLoader(path, PythonFunctions(modules))
        self._loads = 0
        schedule = Schedule()
        states = SessionStates()
        self._mask = mask = self._env.mask
        self._log = mask.logger(__name__)
        script_log = mask.logger(f"wsthreads.script.{name}")
        wait_s = config.script_wait_s + config.script_timeout_s
        reports = Reports(
            script_log,
            metrics,
            config.script_timeout_s,
            wait_s,
            self._loader.modules,
            lambda text: on_failure(mask(text)),
        )
        self._calls = PythonCalls(
            name,
            self._loader.python,
            schedule,
            self._handle,
            self._loader.folder,
            threads=config.script_threads,
            wait_s=config.script_wait_s,
            mask=mask,
        )
        self._fetches = Fetches(name, schedule, config)
        waits = Waits(self._calls, self._fetches)
        requests = ScriptRequests(schedule)
        loop = Loop(name, schedule, states, config, reports, self._loader, metrics, waits, requests)
        super().__init__(name, config, schedule, states, loop)
        current, more, posts = loop.current_state, schedule.has_more, loop.posts
        self._host = HostFunctions(
            states, more, current, script_log, self._loader, posts, requests, rooms, mask
        )
        self._parts = LazyParts()
        self._web = WebFunctions()
        self._started: Future[None] = Future()
        self._thread: threading.Thread | None = None
        #: Whether the isolate has ended without a call of `stop`.
        self.has_died = False

    # The life of the isolate.

    def start(self) -> Exports:
        """Start the thread and load the script. Blocks until the script's top level has run.

        Raises `IsolateError` if no interpreter can be made, `ScriptError` if the script does not load, and
        `HandlerError` if it has no handler function. After an error, the isolate has ended.
        """
        self._thread = threading.Thread(target=self._run, name=f"wsthreads-{self.name}", daemon=True)
        try:
            start_with_stack(self._thread, STACK_BYTES)
        except RuntimeError as error:
            self._thread = None
            self._bury()
            raise IsolateError(f"cannot start a thread for {self.name}: {error}") from error
        self._started.result()
        try:
            return self.load()
        except Exception:
            self.stop(0)
            raise

    @property
    def is_alive(self) -> bool:
        return not self._is_closed

    @property
    def files(self) -> frozenset[str]:
        """The paths of all files that were loaded, or were imported but are missing (see `ModuleLoader`)."""
        return self._loader.files

    def declarations(self) -> dict[str, str]:
        """The type declarations for each Python file that the script has imported.

        The key is the path of the declaration file, such as ``store.py.d.ts``.
        """
        from wsthreads.javascript.declarations import declarations_of  # only ``wsthreads check`` needs it

        return {
            f"{path}.d.ts": declarations_of(functions[0].source, functions)
            for path, functions in self._loader.python.by_file().items()
        }

    def remarks(self) -> tuple[str, ...]:
        """Remarks ``file:line: …`` on values that cannot cross between the script and its imported Python files."""
        from wsthreads.javascript.crossings import remarks_on_functions  # only ``wsthreads check`` needs it

        folder = os.path.dirname(self._path)
        files = self._loader.python.by_file().values()
        return tuple(
            remark
            for functions in files
            for remark in remarks_on_functions(os.path.join(folder, functions[0].source), functions)
        )

    def load(self) -> Exports:
        """Load the script and all of its modules again. If this succeeds, the new functions are called from now on.

        Blocks until the top level has run. Raises like `start`. After an error, the old functions stay.
        """
        with self._mask.in_errors():
            return self._load()

    def _load(self) -> Exports:
        with self._gate:
            ticket = FIRST_LOAD - self._loads
            self._loads += 1
        if self._loads > 1:
            self._loader.renew()
        self._loader.compile()
        try:
            exports: Exports = self._ask(Event("load", None, (ticket, ENTRY), reply=Future())).result()
        except JavaScriptError as error:
            raise self._loader.script_error(error.failure) from None
        if not self._loader.served:
            raise IsolateError("this version of dukpy does not load modules as expected; 0.6 is known to work")
        self.heap_bytes()  # lets the isolate measure the heap
        return exports

    def stop(self, timeout_s: float) -> None:
        """Handle queued events for at most `timeout_s`, and then free the interpreter. Idempotent."""
        deadline = monotonic() + timeout_s
        self._schedule.post(STOP)
        self._join(timeout_s)
        if self._thread is not None and self._thread.is_alive():
            self._loop.end_now()
            self._schedule.post(STOP)
            self._join(GRACE_S)
            if self._thread.is_alive():
                self._log.critical("the thread of %s does not end, and is left running", self.name)
        self._calls.join(max(0.0, deadline - monotonic()))

    def release(self) -> None:
        """Let the thread stop soon. Takes no lock and does not wait, so a finalizer may call this."""
        self._schedule.post(STOP)

    def _join(self, timeout_s: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    # These methods run in the isolate's thread.

    def _run(self) -> None:
        interpreter: Interpreter | None = None
        engine: Engine | None = None
        never_wait()
        try:
            try:
                functions: dict[str, Function] = {}
                for provider in (self._loop, self._host, self._parts, self._web, self._calls, self._fetches):
                    functions.update(provider.functions())
                interpreter, library = make_interpreter(functions, self._loader)
                engine = self._engine_of(interpreter, library)
                code = self._boot(interpreter, engine, functions)
            except BaseException as error:
                self._started.set_exception(error)
                return
            self._started.set_result(None)
            while not self._loop.has_ended:
                try:
                    if engine is not None:
                        engine.run(code)
                    else:
                        interpreter.evaluate(code)
                except JavaScriptError as error:
                    self._loop.stumbled(self._loader.tidy(error.failure))
                if self._loop.is_full:
                    raise IsolateError("the script's heap is full, and a garbage collection has freed nothing")
        except IsolateError as error:
            self.has_died = True
            self._log.critical("the isolate of %s has died, so its sessions are closed: %s", self.name, error)
        except BaseException:
            self.has_died = True
            with suppress(BaseException):  # such as a MemoryError
                self._log.critical("the isolate of %s has died, so its sessions are closed", self.name, exc_info=True)
        finally:
            try:
                self._bury()
            finally:
                if engine is not None:
                    engine.close()
                if interpreter is not None:
                    interpreter.free()

    def _handle(self, kind: str, *parts: Any) -> Any:
        """Make the Python object for a handle that the script passes to a Python function."""
        return self._host.handle(kind, *parts)

    def _engine_of(self, interpreter: Interpreter, library: str) -> Engine | None:
        try:
            return self._make_engine(interpreter.capsule, library, self._loop.uncaught)
        except EngineUnsupported as error:
            if not self._config.scripts_without_deadline:
                raise IsolateError(
                    f"the run time of scripts cannot be limited on this system ({error}), so one script could stop the "
                    "whole server; the setting scripts_without_deadline accepts that"
                ) from error
            self._log.warning("%s runs without deadlines: %s", self.name, error)
            return None

    def _boot(self, interpreter: Interpreter, engine: Engine | None, functions: dict[str, Function]) -> str:
        """Set up the runtime. Returns the code that enters its loop.

        The runtime is a global constant, because only a constant stays after a script without being a property of
        `globalThis`. Its name is random, so that a script cannot guess it.
        """
        name = f"wsthreads_{secrets.token_hex(16)}"
        try:
            interpreter.evaluate(
                runtime_source(name),
                max_room_name_chars=self._config.max_room_name_chars,
                max_user_chars=MAX_USER_CHARS,
                max_id_chars=MAX_ID_CHARS,
                max_ban_s=MAX_BAN_S,
                max_history=self._config.history_messages,
                max_members=MAX_MEMBERS,
                has_engine=engine is not None,
                env=dict(self._env),
            )
            if engine is not None:
                engine.use_runtime(name)
                engine.connect(name, functions)
            self._loader.provide(name)
        except JavaScriptError as error:
            raise IsolateError(f"the runtime does not start: {error}") from error
        self._loop.use_engine(engine)
        self._host.engine = self._parts.engine = self._web.engine = self._fetches.engine = engine
        self._calls.engine = engine
        return f"{name}.loop()"

    def _bury(self) -> None:
        """End every session and every wait.

        Called whatever the reason of the end is. Continues even if one step fails.
        """
        with self._gate:
            self._is_closed = True
            states = list(self._states.values())
            self._states.clear()
        with ExitStack() as stack:
            for state in states:
                stack.callback(state.close, CloseCode.INTERNAL_ERROR, "handler failed")
            for state in states:
                stack.callback(state.end)
            stack.callback(self._loop.abandon)
            stack.callback(self._calls.stop)
            stack.callback(self._fetches.stop)
