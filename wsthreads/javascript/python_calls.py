"""Calls Python functions for a script, and iterates generators for it.

A call has a ticket, which is the number of the promise that the runtime keeps for the call. A call may take
`script_wait_s`, in the queue and in the function together. The result goes back to the script as an event with this
ticket. So Python never blocks a script: the script's other calls continue.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from itertools import takewhile
from time import monotonic
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from wsthreads.javascript.calls import Answer, Function
from wsthreads.javascript.masking import Mask
from wsthreads.javascript.python_functions import PythonFunction, PythonFunctions
from wsthreads.javascript.python_generators import LAST_ENDS_S, GeneratorEnds, OpenGenerator
from wsthreads.javascript.python_pool import PythonPool
from wsthreads.javascript.python_values import Encoded, Handles, arguments_from, encoded
from wsthreads.javascript.schedule import NEVER, Schedule
from wsthreads.javascript.session_state import Event
from wsthreads.loggers import get_logger
from wsthreads.monitoring.failures import bounded, cause_of, members_of, notes_of, text_of, traceback_of
from wsthreads.threads import forks

if TYPE_CHECKING:
    from wsthreads.javascript.engine import Engine

__all__ = ["PythonCalls", "error_of", "result_event"]

log = get_logger(__name__)

#: At most this many generators of a script are open. At this limit, one that was idle for `script_wait_s` is ended.
MAX_GENERATORS = 1000

#: While half of `MAX_GENERATORS` are open, garbage is collected once in this many calls of generator functions.
COLLECT_EVERY = 100

#: A script gets at most this many characters of an exception's text, and this many frames of its stack.
MAX_TEXT_CHARS = 1000
MAX_FRAMES = 20

#: A script gets at most this many causes in a chain, and this many errors in total.
MAX_CAUSES = 6
MAX_ERRORS = 20


class PythonCalls:
    """The calls of one isolate. The isolate's thread calls all methods but `stop`.

    `handle` makes the Python object for a handle of a script. `folder` returns the script's folder. It is left out of
    the places in the errors that the script gets. `mask` is for the log.
    """

    def __init__(
        self,
        name: str,
        functions: PythonFunctions,
        schedule: Schedule,
        handle: Handles,
        folder: Callable[[], str],
        *,
        threads: int,
        wait_s: float,
        mask: Mask | None = None,
    ) -> None:
        self._functions = functions
        self._schedule = schedule
        self._handle = handle
        self._folder = folder
        self._wait_s = wait_s
        self._log = log if mask is None else mask.logger(__name__)
        self._name = f"wsthreads-{name}"
        self._threads = threads
        self._pool = PythonPool(name, threads)
        self._ends: GeneratorEnds | None = None
        # By ticket, in the order in which the calls expire: when the call expires, the function, and the generator that
        # the call continues.
        self._deadlines: dict[int, tuple[float, PythonFunction, int | None]] = {}
        self._arriving: set[int] = set()  # calls that have expired, but whose results were already posted
        #: The calls that can expire. Not empty if there are any.
        self.waiting: Mapping[int, object] = self._deadlines
        self._generators: dict[int, OpenGenerator] = {}  # each single operation is atomic, with and without the GIL
        self._ending: dict[int, OpenGenerator] = {}  # the script no longer uses these; the pool has yet to end them
        self._last_generator = 0
        self.engine: Engine | None = None
        # Calls of generator functions that exceed the limit, by ticket. The promise jobs that follow may drop
        # generators, so that these calls can begin. A refusal of each call is queued after these jobs.
        self._held: dict[int, Callable[[], Answer]] = {}
        self._tries = self._collected_at = 0  # both are numbers of calls of generator functions

    def functions(self) -> dict[str, Function]:
        """The functions that the runtime calls. Each returns None, or why the call cannot be made."""
        return {"call_function": self._call, "next_of": self._next, "end_of": self._end, "drop_generator": self._drop}

    @property
    def is_idle(self) -> bool:
        """Whether no call waits for its result."""
        return not (self._deadlines or self._arriving)

    @property
    def next_expiry(self) -> float:
        """When the oldest call expires, on the monotonic clock."""
        for expires, _, _ in self._deadlines.values():
            return expires
        return NEVER

    def refuse(self, event: Event) -> None:
        """Post an error instead of a result that the runtime could not take."""
        ticket = event.arguments[-1]
        if ticket:
            error = error_of("RangeError", "the result cannot be taken: it needs too much time or memory")
            self._schedule.post(result_event(ticket, False, error))

    def settle(self, ticket: int | None) -> bool:
        """Note that the result of a call has arrived. Returns false if the script no longer waits for the result."""
        if ticket is not None and ticket < 0:  # a refusal, which has no effect unless the call is still held
            return self._held.pop(-ticket, None) is not None and self.settle(-ticket)
        if ticket is None or self._deadlines.pop(ticket, None) is not None:
            return True
        is_late = ticket in self._arriving
        self._arriving.discard(ticket)
        return is_late

    def expire(self, now: float) -> None:
        """Give up the calls whose time is over. The script gets a TimeoutError for each of them."""
        late = list(takewhile(lambda ticket: self._deadlines[ticket][0] <= now, self._deadlines))
        # The last calls first, so that a waiting call does not get a thread that becomes free.
        was_running = {ticket: self._pool.give_up(ticket) for ticket in reversed(late)}
        for ticket in late:
            is_running = was_running[ticket]
            _, function, generator = self._deadlines.pop(ticket)
            if is_running is None:
                self._arriving.add(ticket)  # the result was ready in time, but the script was busy
                continue
            state = "has not returned" if is_running else "got no thread"
            if is_running:
                what = "%s has not returned in %g s: the script waits no longer, but the function's thread continues"
                self._log.warning(what, function, self._wait_s)
            error = error_of("TimeoutError", f"{function} {state} in {self._wait_s:g} s")
            self._schedule.post(result_event(ticket, False, error))
            if generator is not None and not is_running:
                self._close_later(generator, instead_of=ticket)  # the script gets no further value from this generator

    def stop(self) -> None:
        """Begin no more calls, and end the generators that do not run now. Any thread."""
        self._pool.stop()
        generators, self._generators = list(self._generators.values()), {}
        generators += list(self._ending.values())  # the pool begins no more jobs for these
        self._ends = GeneratorEnds(generators, self._threads, self._name, self._log.error)

    def join(self, timeout_s: float) -> None:
        """After `stop`: wait for the generators that it ends, at most `timeout_s` and `LAST_ENDS_S`. Any thread."""
        if self._ends is not None:
            self._ends.join(min(timeout_s, LAST_ENDS_S))

    def _call(self, ticket: int, number: int, text: str, specials: str | None = None) -> Answer:
        function = self._functions[number]
        arguments = arguments_from(text, specials, self._handle)
        if not function.is_generator:
            return self._begin(ticket, function, lambda: function.function(*arguments))
        self._tries += 1
        begin = partial(self._open, ticket, function, arguments)
        is_full = len(self._generators) >= MAX_GENERATORS
        if self.engine is not None and self._is_collection_due(is_full):
            self._collected_at = self._tries
            self.engine.collect_garbage()
        if not is_full or self._end_idle():
            return begin()
        self._held[ticket] = begin
        self._deadlines[ticket] = (monotonic() + self._wait_s, function, None)
        text = f"{function}: {MAX_GENERATORS} generators of this script are open; end one of them first"
        self._schedule.post(result_event(ticket, False, error_of("Error", text), settles=-ticket))
        return None

    def _is_collection_due(self, is_full: bool) -> bool:
        """Whether to collect garbage, so that generators without a reference end: at the limit, or now and then."""
        if is_full:
            return not self._held  # otherwise garbage has just been collected
        return self._tries - self._collected_at >= COLLECT_EVERY and len(self._generators) >= MAX_GENERATORS // 2

    def _open(self, ticket: int, function: PythonFunction, arguments: Any) -> Answer:
        """Call a generator function. The generator counts toward the limit from now on."""
        self._last_generator = number = self._last_generator + 1
        self._generators[number] = generator = OpenGenerator(function)

        def make() -> int:
            try:
                generator.open(*arguments)
            except BaseException:
                self._generators.pop(number, None)
                raise
            if number not in self._generators:  # the script has ended in the meantime
                generator.drop(self._log.error)
            return number

        refusal = self._begin(ticket, function, make, number)
        if refusal is not None:
            self._generators.pop(number, None)
        return refusal

    def _open_held(self) -> None:
        """Begin calls that are held, if there are fewer generators than the limit."""
        for ticket in [*self._held]:
            if len(self._generators) >= MAX_GENERATORS:
                break
            waiting = self._deadlines.pop(ticket, None)
            if waiting is not None and isinstance(refusal := self._held.pop(ticket)(), str):
                self._deadlines[ticket] = waiting
                self._schedule.post(result_event(ticket, False, error_of("Error", refusal), settles=ticket))

    def _next(self, ticket: int, number: int) -> Answer:
        """Compute the next iterator result of a generator."""
        generator = self._generators.get(number)
        if generator is None:
            return f"the generator was idle for {self._wait_s:g} s, and has ended: {MAX_GENERATORS} others were open"
        generator.idle_since = NEVER

        def go_on() -> dict[str, Any]:
            try:
                return {"done": False, "value": generator.step()}
            except StopIteration as end:
                self._generators.pop(number, None)
                return {"done": True, "value": end.value}
            except BaseException:
                self._generators.pop(number, None)
                raise
            finally:
                if number not in self._generators:  # the script may have dropped the generator in the meantime
                    generator.drop(self._log.error)

        return self._begin(ticket, generator.what, go_on, number)

    def _end(self, ticket: int, number: int) -> Answer:
        """End a generator before it has ended by itself."""
        generator = self._generators.pop(number, None)
        if generator is None:
            return "the generator has ended"
        self._ending[number] = generator
        generator.end_job = ticket

        def close() -> None:
            try:
                generator.end()
            finally:
                self._ending.pop(number, None)

        return self._begin(ticket, generator.what, close, number)

    def _begin(
        self, ticket: int, function: PythonFunction, work: Callable[[], Any], generator: int | None = None
    ) -> Answer:
        """Let a thread of the pool do `work`. If `generator` is given, `work` is its next step."""
        refusal = self._pool.submit(ticket, lambda: self._work(ticket, function, work, generator))
        if refusal is not None:
            if generator is not None:
                self._close_later(generator, instead_of=ticket)
            return f"{function} cannot be called: {refusal}"
        self._deadlines[ticket] = (monotonic() + self._wait_s, function, generator)
        return None

    def _drop(self, number: int) -> Answer:
        """Drop a generator that the script can no longer reach."""
        self._close_later(number)
        self._open_held()
        return None

    def _end_idle(self) -> bool:
        """End the generator that has been idle for the longest time, if this is more than `script_wait_s`."""
        generators = list(self._generators.items())
        number, generator = min(generators, key=lambda item: item[1].idle_since)
        is_idle = generator.idle_since < monotonic() - self._wait_s
        if is_idle:
            self._close_later(number)
        return is_idle

    def _close_later(self, number: int, instead_of: int = 0) -> None:
        """Let a thread of the pool end a generator, unless a job other than `instead_of` (not begun) does so."""
        generator = self._generators.pop(number, None)
        if generator is None:
            generator = self._ending.get(number)
            if generator is None or generator.end_job != instead_of:
                return
        self._ending[number] = generator
        generator.end_job = -number
        if self._pool.submit(-number, partial(self._end_dropped, number, generator)) is not None:
            generator.idle_since, generator.end_job = monotonic(), 0
            # the generator is ended later, because this thread must not run its `finally`
            self._generators[number] = generator
            self._ending.pop(number, None)

    def _end_dropped(self, number: int, generator: OpenGenerator) -> None:
        generator.drop(self._log.error)
        self._ending.pop(number, None)

    def _work(self, ticket: int, function: PythonFunction, work: Callable[[], Any], number: int | None) -> None:
        """Call the function, and post the result. Runs in a thread of the pool."""
        fork = forks.number
        try:
            value = work()
            if fork != forks.number:
                forks.leave(None)
            try:
                result = encoded(value)
            except (TypeError, ValueError, RecursionError) as error:
                kind = "TypeError" if isinstance(error, TypeError) else "RangeError"
                message = f"{function} returned what JavaScript cannot have: {error}"
                self._post(ticket, False, error_of(kind, bounded(message, MAX_TEXT_CHARS)))
                generator = None if number is None else self._generators.pop(number, None)
                if generator is not None:
                    generator.drop(self._log.error)
            else:
                self._post(ticket, True, result)
        except BaseException as error:  # catches even SystemExit, because the thread must continue
            if fork != forks.number:
                forks.leave(error)
            try:
                described = self._described(error)
            except BaseException:  # raised by the class of the exception
                described = error_of("Error", f"{function} has raised an exception that cannot be described")
            self._post(ticket, False, described)

    def _described(self, error: BaseException) -> Encoded:
        """Describe an exception for the script, with its causes and the members of a group."""
        return Encoded(json.dumps(self._told(error, [], 0)))

    def _told(self, error: BaseException, seen: list[BaseException], depth: int) -> list[Any]:
        """Like `error_of`: class name, text, frames and notes. Then the cause and the members of a group."""
        seen.append(error)
        name: str = type.__dict__["__name__"].__get__(type(error))  # a metaclass may redefine __name__
        text = text_of(error)
        message = "(no text: its __str__ failed)" if text is None else bounded(text, MAX_TEXT_CHARS)
        folder = self._folder() + os.sep
        frames = []
        for frame, line in walk_tb(traceback_of(error)):
            code = frame.f_code
            if code.co_filename != __file__:
                frames.append(f"    at {code.co_name} ({code.co_filename.removeprefix(folder)}:{line})")
        notes = bounded("\n".join(notes_of(error)), MAX_TEXT_CHARS).splitlines()
        stack = [*(f"    note: {line}" for line in notes), *frames[: -MAX_FRAMES - 1 : -1]]
        told = [name, message, "\n".join(stack)]

        def related(other: BaseException | None) -> list[Any] | None:
            is_new = other is not None and all(other is not each for each in seen)
            is_shown = is_new and depth < MAX_CAUSES and len(seen) < MAX_ERRORS
            return self._told(other, seen, depth + 1) if other is not None and is_shown else None

        cause = related(cause_of(error))
        members = [each for member in members_of(error) if (each := related(member)) is not None]
        return [*told, cause, members] if cause is not None or members else told

    def _post(self, ticket: int, is_returned: bool, what: Encoded) -> None:
        self._schedule.post(result_event(ticket, is_returned, what, settles=ticket))


def result_event(ticket: int, is_returned: bool, what: Encoded, *, settles: int | None = None) -> Event:
    """Make the event with a result or an error of a call. `settles` is the ticket of the call if it still waits."""
    returned = "true" if is_returned else "false"
    begun = f'["result",null,{ticket},{returned},{what.text},"{what.key}",{list(what.sizes)},'
    return Event("result", None, (settles, begun.encode(), what.data, ticket if is_returned else 0))


def error_of(name: str, message: str, frames: str = "") -> Encoded:
    """Encode an error for a script: its name, its message, and frames for its stack."""
    return Encoded(json.dumps([name, message, frames]))
