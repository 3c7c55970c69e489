"""The isolate: a script's interpreter, the one thread that may touch it, and the queue of events between them.

Guarantees:

- One thread creates, enters and frees the interpreter. It enters once and stays in the runtime's loop, which pulls its
  events from `Loop`; no event costs a compilation or a garbage collection.
- Every event is handed over, in its session's order, or its session is closed and the log says why (`Loop`).
- A session's events never overlap: while a promise of its is pending, they wait (`Schedule`).
- Where there is the C module, a session's thread reads its messages to the queue without the GIL (`inbox`).
- No call of JavaScript takes longer than `Config.script_timeout_s`, where there is an `Engine` to hold it to that.
  A single built-in function cannot be stopped while it runs.
- Whatever happens to the thread, nobody is left waiting: `_bury` ends every state and answers every reply.
"""

from __future__ import annotations

import importlib.resources
import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from contextlib import ExitStack, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.errors import CloseCode, HandshakeRefused, IsolateError
from wsthreads.javascript.calls import Function
from wsthreads.javascript.engine import Engine, JavaScriptError
from wsthreads.javascript.exports import Exports
from wsthreads.javascript.host import HostFunctions
from wsthreads.javascript.interpreter import Interpreter, make_interpreter
from wsthreads.javascript.loader import ENTRY, ModuleLoader
from wsthreads.javascript.loop import STOP, Loop
from wsthreads.javascript.quickjs import EngineUnsupported
from wsthreads.javascript.reports import Reports, ignore
from wsthreads.javascript.schedule import Schedule
from wsthreads.javascript.session_state import Event, SessionState
from wsthreads.javascript.stacks import Failure
from wsthreads.loggers import get_logger
from wsthreads.threads.blocking import never_wait

if TYPE_CHECKING:
    from wsthreads.config import Config
    from wsthreads.monitoring.metrics import Metrics
    from wsthreads.protocol.handshake import Request
    from wsthreads.protocol.readers import Reader
    from wsthreads.rooms.rooms import Room
    from wsthreads.sessions.session import Session

__all__ = ["Isolate"]

log = get_logger(__name__)

#: QuickJS takes 1 MiB of the stack; the server may run its other threads with less than that.
STACK_BYTES = 16 * 1024 * 1024

#: How long a thread may take to end after it was told to, and whatever it ran was interrupted.
GRACE_S = 2.0

#: How old a figure for the size of the heap may get, in seconds.
HEAP_AGE_S = 10.0
#: How long somebody who only looks may wait for a script.
LOOK_TIMEOUT_S = 0.2

_RUNTIME_PARTS = ("boot", "inspect", "console", "timers", "objects", "loop")

_spawning = threading.Lock()  # guards the stack size for new threads, which is the process's

#: `Engine`, or what stands in for it in tests.
EngineMaker = Callable[[object, str, Callable[[str, Failure], None]], Engine]


class Isolate:
    """Runs the script at `path`, from `start` to `stop`; afterwards it is of no more use. Any thread."""

    def __init__(
        self,
        path: str,
        config: Config,
        metrics: Metrics,
        make_engine: EngineMaker = Engine,
        *,
        on_failure: Callable[[str], None] = ignore,
        room: Callable[[str], Room] | None = None,
    ) -> None:
        self.name = os.path.basename(path)
        self._path = path
        self._config = config
        self._make_engine = make_engine
        self._loader = ModuleLoader(path)
        self._loads = 0
        self._schedule = Schedule()
        self._states: dict[str, SessionState] = {}  # by session id; each single operation on it is atomic under the GIL
        self._gate = threading.Lock()  # guards _is_closed: states are added and replies awaited only until it is set
        self._is_closed = False
        script_log = get_logger(f"wsthreads.script.{self.name}")
        reports = Reports(script_log, metrics, config.script_timeout_s, self._loader.modules, on_failure)
        self._loop = Loop(self.name, self._schedule, self._states, config, reports, self._loader, metrics)
        current = self._loop.current_state
        self._host = HostFunctions(self._states, self._schedule.has_more, current, script_log, self._loader, room)
        self._heap_due = 0.0  # monotonic: when the next look at it may be taken
        self._started: Future[None] = Future()
        self._thread: threading.Thread | None = None
        #: Whether it has ended without being told to.
        self.has_died = False

    # Life.

    def start(self) -> Exports:
        """Start the thread and load the script. Blocks until the script's top level has run.

        Raises `IsolateError` if there is no interpreter to be had, `ScriptError` if the script does not load, and
        `HandlerError` if it has no handler function; the isolate has ended then.
        """
        self._thread = threading.Thread(target=self._run, name=f"wsthreads-{self.name}", daemon=True)
        with _spawning:
            before = threading.stack_size(STACK_BYTES)
            try:
                self._thread.start()
            except RuntimeError as error:  # the process may have no more of them
                self._thread = None
                self._bury()
                raise IsolateError(f"no thread for {self.name}: {error}") from error
            finally:
                threading.stack_size(before)
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
        """The paths of all files loaded so far, or looked for in vain: see `ModuleLoader`."""
        return self._loader.files

    def load(self) -> Exports:
        """Load the script anew, all of its modules included. If that works, its functions are called from now on.

        Blocks until its top level has run; raises as `start` does, and then all is as it was.
        """
        with self._gate:
            self._loads += 1
            ticket = -self._loads
        if self._loads > 1:
            self._loader.renew()
        self._loader.compile()
        try:
            exports: Exports = self._ask(Event("load", None, (ticket, ENTRY), reply=Future())).result()
        except JavaScriptError as error:
            raise self._loader.script_error(error.failure) from None
        if not self._loader.served:
            raise IsolateError("this version of dukpy does not load modules as expected; 0.6 is known to work")
        self.heap_bytes()  # a first look, so that there is a figure
        return exports

    def stop(self, timeout_s: float) -> None:
        """Let what is queued be handled, for at most `timeout_s`, then free the interpreter. Idempotent."""
        self._schedule.post(STOP)
        self._join(timeout_s)
        if self._thread is not None and self._thread.is_alive():
            self._loop.end_now()
            self._schedule.post(STOP)
            self._join(GRACE_S)
            if self._thread.is_alive():
                log.critical("the thread of %s cannot be ended: it is left to itself", self.name)

    def release(self) -> None:
        """`stop` soon. Takes no lock and does not wait: for a finalizer."""
        self._schedule.post(STOP)

    def _join(self, timeout_s: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    # Events.

    def open(self, session: Session) -> None:
        state = SessionState(session.id, session)
        event = Event("open", state, (_told(session.request),))
        with self._gate:
            self._check_alive()
            state.reserve(event.size)
            self._states[state.id] = state
            self._schedule.post(event)

    def message(self, session: Session, message: str | bytes) -> None:
        """Blocks while too much of the session's waits (`SessionState.reserve`)."""
        state = self._states.get(session.id)
        if state is None or not state.reserve(len(message)):
            return
        if isinstance(message, str):
            self._schedule.post(Event("message", state, (message,), len(message)))
        else:
            self._schedule.post(Event("binary", state, (message,), len(message)))

    def reader(self, session: Session, descriptor: int) -> Reader | None:
        """What reads the session's messages without Python; None if there is no C module for that."""
        state = self._states.get(session.id)
        if state is None or not hasattr(state, "pump"):
            return None
        return self._schedule.reader(state, descriptor, self._config.max_message_bytes)

    def catch_up(self, session: Session) -> None:
        """Blocks until the session's onOpen has run, and its messages have been handled."""
        state = self._states.get(session.id)
        if state is not None:
            state.wait_handled()

    def settle(self, timeout_s: float) -> None:
        """Blocks until all events so far have been handled, with the promise jobs that they left, or `timeout_s`."""
        with suppress(IsolateError, JavaScriptError, TimeoutError):
            self._ask(Event("again", reply=Future())).result(timeout_s)

    def attributes(self, session_id: str) -> list[tuple[str, bool, str]]:
        """The names and values of a session's attributes: whether each is a text, and what it is in text.

        Raises `IsolateError` if the script is busy for longer than a moment, or has ended.
        """
        try:
            entries: list[tuple[str, bool, str]] = self._ask(Event("look", None, (session_id,), reply=Future())).result(
                LOOK_TIMEOUT_S
            )
        except TimeoutError:
            raise IsolateError(f"{self.name} is busy") from None
        except JavaScriptError as error:  # a getter of the script's, say
            raise IsolateError(f"what {self.name} has put there cannot be looked at") from error
        return entries

    def close(self, session: Session, code: int, reason: str) -> None:
        """Blocks until the script's onClose has ended or never will."""
        state = self._states.get(session.id)
        if state is not None:
            self._schedule.post(Event("close", state, (code, reason)))
            state.wait_for_end()

    def handshake(self, request: Request, session_id: str) -> Any:
        """What onHandshake returned, as JSON has it. Raises `HandshakeRefused` if it threw or took too long."""
        told = {**_told(request), "subprotocols": request.subprotocols}
        event = Event("handshake", SessionState(session_id, None, request), (told,), reply=Future())
        try:
            return self._ask(event).result(self._config.handshake_timeout_s)
        except TimeoutError:
            raise HandshakeRefused(503, "the handler timed out", cause="handler_timeout") from None
        except IsolateError as error:
            raise HandshakeRefused(503, "the handler is not running", cause="handler_down") from error

    def heap_bytes(self) -> int | None:
        """What the script's objects take, of at most 128 MiB, some seconds ago; None where nobody can tell.

        Does not wait. The isolate looks, after it was asked, every `HEAP_AGE_S` at most: it takes it a millisecond for
        some 50,000 objects.
        """
        now = monotonic()
        if now >= self._heap_due:
            self._heap_due = now + HEAP_AGE_S
            self._schedule.post(Event("measure"))
        return self._loop.heap_bytes

    def forget(self, session_id: str) -> None:
        """Drop what the script keeps of a handshake."""
        self._schedule.post(Event("forget", SessionState(session_id, None)))

    def _ask(self, event: Event) -> Future[Any]:
        assert event.reply is not None
        with self._gate:
            self._check_alive()
            self._schedule.post(event)
        return event.reply

    def _check_alive(self) -> None:
        if self._is_closed:
            raise IsolateError(f"the interpreter of {self.name} has ended")

    # The isolate's thread.

    def _run(self) -> None:
        interpreter: Interpreter | None = None
        engine: Engine | None = None
        never_wait()
        try:
            try:
                functions = {**self._loop.functions(), **self._host.functions()}
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
                    raise IsolateError("its heap is full, and a garbage collection has freed nothing")
        except IsolateError as error:
            self.has_died = True
            log.critical("the isolate of %s has died, its sessions are closed: %s", self.name, error)
        except BaseException:
            self.has_died = True
            with suppress(BaseException):  # for want of memory, say
                log.critical("the isolate of %s has died, its sessions are closed", self.name, exc_info=True)
        finally:
            try:
                self._bury()
            finally:
                if engine is not None:
                    engine.close()
                if interpreter is not None:
                    interpreter.free()

    def _engine_of(self, interpreter: Interpreter, library: str) -> Engine | None:
        try:
            return self._make_engine(interpreter.capsule, library, self._loop.uncaught)
        except EngineUnsupported as error:
            if not self._config.scripts_without_deadline:
                raise IsolateError(
                    f"the run time of scripts cannot be bounded here ({error}), so that one could stop the whole "
                    "server; the setting scripts_without_deadline accepts that"
                ) from error
            log.warning("%s runs without deadlines: %s", self.name, error)
            return None

    def _boot(self, interpreter: Interpreter, engine: Engine | None, functions: dict[str, Function]) -> str:
        """Set up the runtime. Returns the code that enters its loop.

        The runtime is a global constant, as only those outlive a script without being a property of `globalThis`;
        nobody can guess its name.
        """
        name = f"wsthreads_{secrets.token_hex(16)}"
        folder = importlib.resources.files(__package__).joinpath("runtime")
        parts = [folder.joinpath(f"{part}.js").read_text("utf-8") for part in _RUNTIME_PARTS]
        source = f'const {name} = (() => {{ "use strict";\n{"".join(parts)}}})();'
        try:
            limit = self._config.max_room_name_chars
            interpreter.evaluate(source, max_room_name_chars=limit, has_engine=engine is not None)
            if engine is not None:
                engine.use_runtime(name)
                engine.connect(name, functions)
        except JavaScriptError as error:
            raise IsolateError(f"the runtime does not start: {error}") from error
        self._loop.engine = self._host.engine = engine
        return f"{name}.loop()"

    def _bury(self) -> None:
        """Leave nobody waiting, whatever the reason of the end, and even if something fails here."""
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


def _told(request: Request) -> dict[str, Any]:
    """What the runtime keeps of a handshake, for as long as the session lives."""
    return {
        "parameters": request.parameters,
        "headers": request.headers,
        "path": request.request_path,
        "address": request.remote_addr,
    }
