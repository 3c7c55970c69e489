"""Controls QuickJS below dukpy, by ctypes: deadlines, promise jobs, and rejections without a handler.

A *promise job* is a function that the engine has to call because a promise has settled.

dukpy (0.6) has no time limit, holds the GIL while JavaScript runs, and runs promise jobs only when the interpreter
returns. Its shared library exports the C API of QuickJS (quickjs-ng 0.11), which has functions for all of this.

Guarantees and assumptions:

- Only the isolate's thread calls the methods of this module, and holds the GIL. But any thread may call `interrupt`.
- `JS_GetRuntime(context) == runtime` proves, before all other calls, that the capsule's struct begins with the
  JSRuntime and the JSContext. If it does not, `EngineUnsupported` is raised.
- A JSValue is the struct of 16 bytes that 64-bit builds use. If a `JS_` function returns a JSValue, this module owns
  the value and frees it.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from ctypes import (
    byref,
    c_int32,
    c_int64,
    c_size_t,
    c_void_p,
)
from functools import partial
from typing import Any

from wsthreads._native import bridge
from wsthreads.javascript.alarm import NEVER, Alarm
from wsthreads.javascript.calls import Function, parse, refusal
from wsthreads.javascript.interrupts import find_counter
from wsthreads.javascript.quickjs import (
    UNDEFINED,
    EngineUnsupported,
    InterruptHandler,
    RejectionTracker,
    Value,
    bridge_addresses,
    library,
    pointers,
)
from wsthreads.javascript.stacks import Failure
from wsthreads.loggers import get_logger

__all__ = ["Engine", "JavaScriptError"]

log = get_logger(__name__)

#: If a call takes longer than `FIRST_TURN_S`, it lets other threads run after each period of this length.
TURN_S = 0.002
#: How long it lets other threads run. This is long enough for a waiting thread to be scheduled; `sleep(0)` would take
#: the GIL back too soon.
PAUSE_S = 0.00005

#: If a promise job was stopped, later jobs run for this long. After that, other sessions of the script are handled
#: first.
JOBS_TURN_S = 0.005

#: On a busy machine, a call may take this many times longer than its limit.
MAX_STRETCH = 4

#: If less than this is left of a call's time, the time counts as over.
MIN_LEFT_S = 0.001

#: How long it may take to describe an error. The description can run code of the script, such as a getter.
DESCRIBE_TIMEOUT_S = 0.5

_FILE_NAME = b"<wsthreads>"


class JavaScriptError(Exception):
    """An error that JavaScript has thrown."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Engine:
    """The engine under a dukpy interpreter.

    The object exists from `Engine(...)` to `close()`. The isolate's thread makes both calls.

    `capsule` is the interpreter's ``_ctx``. `on_error(what, failure)` is called for errors that no caller receives:
    those of promise jobs, and of rejected promises without a handler. Raises `EngineUnsupported`.
    """

    def __init__(self, capsule: object, library_path: str, on_error: Callable[[str, Failure], None]) -> None:
        if ctypes.sizeof(c_void_p) != 8:
            raise EngineUnsupported("this Python is a 32-bit build, and a time limit needs a 64-bit build")
        self._js: Any = library(library_path)
        self._runtime, self._context = pointers(self._js, capsule)
        self._on_error = on_error
        #: How long the last stopped call had taken, including the time in which its thread had no core.
        self.stopped_after_s = 0.0
        self._jobs_left_s = NEVER  # the time that all jobs together have left, after one was stopped
        self._describe: Value | None = None
        self._parcel: Value | None = None
        #: Returns whether there are promise jobs for `run_jobs`.
        self.has_jobs: Callable[[], bool] = partial(self._js.JS_IsJobPending, self._runtime)
        #: Whether `connect` has connected the C module.
        self.is_connected = False
        self._bridge: Any = None
        # each rejected promise and its reason, by the promise's address
        self._rejected: dict[int, tuple[Value, Value]] = {}
        #: Whether there are rejections for `report_rejections`.
        self.rejected: Mapping[int, object] = self._rejected
        # The engine has only the addresses of these two objects, so they must exist until close().
        self._interrupt_handler = InterruptHandler(0)
        self._rejection_tracker = RejectionTracker(self._track)
        self._module = bridge()
        self._counter = self._find_counter()
        self._alarm = self._set_alarm()
        #: Start a time limit: JavaScript is stopped after running for this many seconds. Returns the present time.
        #:
        #: Time in which the thread has no core, or waits for Redis or the GIL, is not counted. But after `MAX_STRETCH`
        #: times as long, JavaScript is stopped in any case.
        self.arm: Callable[[float], float] = self._alarm.arm
        self.disarm: Callable[[], None] = self._alarm.disarm
        self._js.JS_SetHostPromiseRejectionTracker(self._runtime, self._rejection_tracker, None)

    def close(self) -> None:
        """Release all values that would prevent the interpreter from being freed."""
        js = self._js
        js.JS_SetInterruptHandler(self._runtime, InterruptHandler(0), None)
        js.JS_SetHostPromiseRejectionTracker(self._runtime, RejectionTracker(0), None)
        for promise, reason in self._rejected.values():
            js.JS_FreeValue(self._context, promise)
            js.JS_FreeValue(self._context, reason)
        self._rejected.clear()
        for value in (self._describe, self._parcel):
            if value is not None:
                js.JS_FreeValue(self._context, value)
        self._describe = self._parcel = None

    # Deadlines.

    def interrupt(self) -> None:
        """Stop JavaScript at once, and let it never run again. Any thread."""
        self._alarm.is_interrupted = True

    def _look(self, now: float) -> bool:
        """Whether to stop the running call. If the call continues, other threads may run before."""
        alarm = self._alarm
        if alarm.is_interrupted or (now >= alarm.deadline and self._has_run_out(now)):
            self.stopped_after_s = now - alarm.armed_at
            return True
        if now >= alarm.turn_ends:
            if alarm.cpu_ends == NEVER:
                alarm.cpu_ends = time.thread_time() + alarm.deadline - now
            time.sleep(PAUSE_S)
            alarm.turn_ends = time.monotonic() + TURN_S
        return False

    def _has_run_out(self, now: float) -> bool:
        """Whether the thread has really run until the deadline. If not, moves the deadline. Called at the deadline."""
        alarm = self._alarm
        cpu = time.thread_time()
        if alarm.cpu_ends == NEVER:  # this is the first check, because a single function has taken all the time
            alarm.cpu_ends = cpu + alarm.timeout_s
        left_s = min(alarm.cpu_ends - cpu, alarm.armed_at + MAX_STRETCH * alarm.timeout_s - now)
        if left_s > MIN_LEFT_S:
            alarm.deadline = now + left_s
        return left_s <= MIN_LEFT_S

    def _set_alarm(self) -> Alarm:
        """Make the alarm the engine's interrupt handler."""
        if self._module is None:
            alarm = Alarm(self._counter, self._look)
            self._set_interrupt_handler(alarm.ask)
            return alarm
        address = 0 if self._counter is None else ctypes.addressof(self._counter)
        native: Alarm = self._module.Alarm(address, self._look)
        self._interrupt_handler = InterruptHandler(self._module.interrupt_handler)
        self._js.JS_SetInterruptHandler(self._runtime, self._interrupt_handler, id(native))
        return native

    def _set_interrupt_handler(self, function: Callable[[int, int], int]) -> None:
        self._interrupt_handler = InterruptHandler(function)
        self._js.JS_SetInterruptHandler(self._runtime, self._interrupt_handler, None)

    def _find_counter(self) -> c_int32 | None:
        size = self._js.js_malloc_usable_size(self._context, self._context)
        counter = find_counter(self._context, size, self.run, self._set_interrupt_handler)
        if counter is None:
            log.warning("QuickJS checks deadlines seldom here, so a script's loop can delay other sessions for long")
        return counter

    # Running.

    def run(self, code: str) -> None:
        """Run a script. Raises `JavaScriptError`. Does not run promise jobs; `run_jobs` does."""
        self._js.JS_UpdateStackTop(self._runtime)
        result = self._evaluate(code)
        if result.is_exception:
            self.arm(DESCRIBE_TIMEOUT_S)
            raise JavaScriptError(self._take_exception())
        self._js.JS_FreeValue(self._context, result)

    def use_runtime(self, name: str) -> None:
        """Use two parts of the runtime.

        `describe` turns errors into text. `parcel` is an object for texts and bytes that are too long for an argument.
        """
        self._describe = self._evaluate(f"{name}.describe")
        self._parcel = self._evaluate(f"{name}.parcel")

    def connect(self, name: str, functions: dict[str, Function]) -> None:
        """Let the runtime call `functions` through the C module, if that is built.

        Otherwise the runtime calls through dukpy.

        After this call, this object must exist for longer than the interpreter.
        """
        module = self._module
        if module is None:
            return
        js, context = self._js, self._context
        try:
            addresses = bridge_addresses(js)
        except EngineUnsupported as error:
            log.debug("scripts call Python through dukpy: %s", error)
            return
        self._bridge = module.Bridge(functions, refusal, parse)
        function = Value()
        self._bridge.make(self._runtime, context, addresses, ctypes.addressof(function))
        self.has_jobs = self._bridge.has_jobs
        self.is_connected = True
        connect = self._evaluate(f"{name}.connect")
        js.JS_FreeValue(context, js.JS_Call(context, connect, UNDEFINED, 1, byref(function)))
        js.JS_FreeValue(context, connect)
        js.JS_FreeValue(context, function)

    # The parcel. Its texts may have lone surrogates.

    def put_text(self, text: str) -> bool:
        """Copy `text` into the parcel. Returns false if the script's heap has no space for it."""
        data = text.encode("utf-8", "surrogatepass")
        return self._put(b"text", self._js.JS_NewStringLen(self._context, data, len(data)))

    def take_text(self) -> str:
        """Copy the text from the parcel. Raises MemoryError."""
        js, context = self._js, self._context
        value = js.JS_GetPropertyStr(context, self._parcel, b"text")
        text = self._string(value, "surrogatepass")
        js.JS_FreeValue(context, value)
        if text is None:
            raise MemoryError("the script's heap has no room for the text")
        return text

    def put_bytes(self, data: bytes) -> bool:
        """Copy `data` into the parcel. Returns false if the script's heap has no space for it."""
        return self._put(b"bytes", self._js.JS_NewArrayBufferCopy(self._context, data, len(data)))

    def put_value(self, code: str) -> bool:
        """Put the value of an expression into the parcel's property `part`.

        Returns false if time or memory runs out.
        """
        return self._put(b"part", self._evaluate(code))

    def _put(self, name: bytes, value: Value) -> bool:
        assert self._parcel is not None
        js, context = self._js, self._context
        if value.is_exception or js.JS_SetPropertyStr(context, self._parcel, name, value) < 0:
            js.JS_FreeValue(context, js.JS_GetException(context))
            return False
        return True

    def take_bytes(self) -> bytes:
        """Copy the bytes from the parcel."""
        js, context = self._js, self._context
        value = js.JS_GetPropertyStr(context, self._parcel, b"bytes")
        size = c_size_t()
        address = js.JS_GetArrayBuffer(context, byref(size), value)
        data = ctypes.string_at(address, size.value) if address and size.value else b""
        js.JS_FreeValue(context, value)
        return data

    def run_jobs(self, timeout_s: float) -> bool:
        """Run promise jobs until none is left. Returns false if there was none.

        All jobs together have `timeout_s`. If this is not enough, the running job is stopped and dropped, and the
        others have `timeout_s` again. So an endless chain of jobs is broken. (The stopped job may be another one that
        ran between jobs of such a chain.) There may be many endless chains. So after the first stop, each call of this
        method runs jobs only for `JOBS_TURN_S`, and the caller can handle other events between two calls.
        """
        js, runtime = self._js, self._runtime
        if not self.has_jobs():
            return False
        context = c_void_p()
        began, turn_began = self.arm(min(self._jobs_left_s, timeout_s)), time.thread_time()
        while js.JS_IsJobPending(runtime) and not self._alarm.is_interrupted:
            failed = js.JS_ExecutePendingJob(runtime, byref(context)) < 0
            if self._alarm.has_stopped:
                failed |= js.JS_HasException(self._context)  # some jobs of the engine itself do not report a failure
                self._jobs_left_s = timeout_s
                began, turn_began = self.arm(timeout_s), time.thread_time()
            if failed:
                self._on_error("a promise job", self._take_exception())
            # The time is CPU time, so that a job that was waiting before this call is nearly always run in this call.
            if self._jobs_left_s != NEVER and time.thread_time() - turn_began >= JOBS_TURN_S:
                self._jobs_left_s = max(MIN_LEFT_S, self._jobs_left_s - (time.monotonic() - began))
                break
        else:
            self._jobs_left_s = NEVER
        self.disarm()
        return True

    def report_rejections(self, timeout_s: float) -> None:
        """Report the rejected promises that have no handler."""
        while self._rejected:
            _, (promise, reason) = self._rejected.popitem()
            self.arm(timeout_s)
            failure = self._failure_of(reason)
            self._js.JS_FreeValue(self._context, promise)
            self._js.JS_FreeValue(self._context, reason)
            self._on_error("a promise", failure)
        self.disarm()

    def heap_bytes(self) -> int:
        """How many bytes are allocated for the script. Visits each object: 50,000 objects take about a millisecond."""
        return self._memory()[0]

    def collect_garbage(self) -> int:
        """Collect garbage. Returns how many bytes the script may allocate after that."""
        self._js.JS_RunGC(self._runtime)
        size, limit = self._memory()
        return limit - size

    def _memory(self) -> tuple[int, int]:
        """How many bytes are allocated, and how many may be."""
        usage = (c_int64 * 64)()  # JSMemoryUsage has 26 numbers; the first two are malloc_size and malloc_limit
        self._js.JS_ComputeMemoryUsage(self._runtime, usage)
        return usage[0], usage[1]

    def _track(self, context: int, promise: Value, reason: Value, handled: bool, _opaque: int) -> None:
        """Called by the engine when a promise is rejected without a handler, and when it gets a handler later."""
        js = self._js
        if not handled:
            self._rejected[promise.bits] = (js.JS_DupValue(context, promise), js.JS_DupValue(context, reason))
        elif promise.bits in self._rejected:
            for value in self._rejected.pop(promise.bits):
                js.JS_FreeValue(context, value)

    def _evaluate(self, code: str) -> Value:
        source = code.encode()
        value: Value = self._js.JS_Eval(self._context, source, len(source), _FILE_NAME, 0)
        return value

    def _take_exception(self) -> Failure:
        """Clear the pending exception, and return its description."""
        error = self._js.JS_GetException(self._context)
        failure = self._failure_of(error)
        self._js.JS_FreeValue(self._context, error)
        return failure

    def _failure_of(self, value: Value) -> Failure:
        js, context = self._js, self._context
        if self._describe is not None:
            described = js.JS_Call(context, self._describe, UNDEFINED, 1, byref(value))
            text = self._string(described)
            js.JS_FreeValue(context, described)
            if text is not None:
                return Failure.read(text)
        return Failure.of(self._string(value) or "an error that cannot be read")

    def _string(self, value: Value, errors: str = "replace") -> str | None:
        js, context = self._js, self._context
        size = c_size_t()
        address = None if value.is_exception else js.JS_ToCStringLen2(context, byref(size), value, False)
        if address is None:
            js.JS_FreeValue(context, js.JS_GetException(context))
            return None
        text = ctypes.string_at(address, size.value).decode("utf-8", errors)
        js.JS_FreeCString(context, address)
        return text
