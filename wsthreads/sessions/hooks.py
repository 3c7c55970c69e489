"""The functions that a handler may have (hooks), and checks of the functions of a Python handler when it is loaded."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Container, Iterable
from typing import Any

from wsthreads.errors import HandlerError, brief
from wsthreads.loggers import get_logger
from wsthreads.rooms.ticks import TICK_RATES, is_tick_rate
from wsthreads.sessions.generators import Place, unwrapped
from wsthreads.sessions.source_names import did_you_mean

__all__ = [
    "ARGUMENTS",
    "HOOKS",
    "RESUMING_HOOKS",
    "ROOM_HOOKS",
    "SCRIPT_HOOKS",
    "NotRun",
    "check_signature",
    "extra_arguments",
    "not_run",
    "tick_rate_of",
    "warn_of_idle",
    "warn_of_misspelt",
    "without_functions",
]

log = get_logger(__name__)

#: The functions that a handler may have, in Python's spelling, with their arguments. `on_close` may have fewer of them.
ARGUMENTS = {
    "on_handshake": ("request",),
    "on_open": ("session",),
    "on_message": ("session", "message"),
    "on_request": ("session", "message"),
    "on_suspend": ("session",),
    "on_resume": ("session",),
    "on_close": ("session", "code", "reason"),
    "on_error": ("session", "error"),
    "on_presence": ("room", "changes"),
    "on_room_start": ("room",),
    "on_post": ("room", "value", "sender"),
    "on_tick": ("room", "dt"),
    "on_room_end": ("room",),
}
HOOKS = tuple(ARGUMENTS)
#: If a handler has one of these functions, the rooms of its endpoint have owners.
ROOM_HOOKS = frozenset({"on_room_start", "on_post", "on_tick", "on_room_end"})
#: These functions are called only if `resume_s` is not 0.
RESUMING_HOOKS = ("on_suspend", "on_resume")
#: The functions that a script may have. Only scripts are reloaded inside of a running process.
SCRIPT_HOOKS = (*HOOKS, "on_reload")


class NotRun(HandlerError):
    """The body of a handler function does not run, because it is a generator or async function.

    `place` is where it is defined.
    """

    def __init__(self, message: str, hook: str, place: Place) -> None:
        super().__init__(message, hook)
        self.path, self.line = place


def not_run(what: str, hook: str, function: Callable[..., Any], *, in_file: bool) -> HandlerError:
    """The error for a function whose call does not run its body.

    The text of the error names the file and the line of the function. With `in_file`, the function is in the handler's
    own file, and the text does not name the file.
    """
    message = f"{what}, whose body never runs; handlers are plain functions"
    code = getattr(unwrapped(function), "__code__", None)
    if in_file or code is None:
        return HandlerError(message, hook)
    return NotRun(f"{message} ({code.co_filename}:{code.co_firstlineno})", hook, Place.of(code))


def check_signature(name: str, hook: str, function: Callable[..., Any]) -> None:
    """Raise `HandlerError` for a function with a wrong signature."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # a decorator may add arguments
    except (TypeError, ValueError):  # a callable without a known signature
        return
    arguments = ARGUMENTS[hook]
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


def tick_rate_of(name: str, target: object, *, has_ticks: bool) -> float | None:
    """The `tick_rate` of a handler.

    Raises `HandlerError` if the value is not valid, or if the handler has `tick_rate` without `on_tick` or the reverse.
    """
    rate = getattr(target, "tick_rate", None)
    if rate is None and not has_ticks:
        return None
    missing = "tick_rate" if rate is None else "on_tick"
    names = (written for written in dir(target) if written != missing)  # the attribute may exist, but be None
    meant = next((written for written in names if did_you_mean(written, (missing,))), None)
    hint = "" if meant is None else f"; {name} has {meant}, did you mean {missing}?"
    if rate is None:
        message = f"{name}.on_tick needs tick_rate, {TICK_RATES}, as in tick_rate = 20{hint}"
        raise HandlerError(message, meant or "on_tick")
    if not is_tick_rate(rate):
        raise HandlerError(f"{name}.tick_rate must be {TICK_RATES}, not {brief(rate)}", "tick_rate")
    if not has_ticks:
        raise HandlerError(f"{name}.tick_rate is for on_tick(room, dt), which is missing{hint}", meant or "tick_rate")
    return float(rate)


def without_functions(name: str, target: object) -> HandlerError:
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
    for about, value in vars(target).items() if inspect.ismodule(target) else ():
        if inspect.isclass(value) and any(hook in vars(value) for hook in HOOKS):
            hint = f"its class {about} has some, and is served by WebSocketApp.route or add_handler"
            return HandlerError(f"{message}; {hint}", about)
    return HandlerError(message)


def warn_of_misspelt(name: str, names: Iterable[str], hooks: Container[str]) -> None:
    """Warn of methods whose names are similar to those of `HOOKS` that the handler does not have."""
    missing = [hook for hook in HOOKS if hook not in hooks]
    for written in names:
        meant = did_you_mean(written, missing)
        if meant is not None:
            log.warning("%s.%s is never called; did you mean %s?", name, written, meant)


def warn_of_idle(name: str, hooks: Container[str]) -> None:
    """Warn of functions that are never called, because `resume_s` is 0."""
    idle = [hook for hook in RESUMING_HOOKS if hook in hooks]
    if idle:
        shown = " and ".join(f"{name}.{hook}" for hook in idle)
        are = "are" if len(idle) > 1 else "is"
        log.warning("%s %s never called: resume_s is 0; set it, as in WebSocketApp(resume_s=60)", shown, are)


def extra_arguments(on_close: Callable[..., Any]) -> int:
    """How many of the arguments `code` and `reason` an `on_close` accepts: 0, 1 or 2."""
    try:
        parameters = inspect.signature(on_close).parameters.values()
    except (TypeError, ValueError):  # a callable without a known signature: pass both arguments
        return 2
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    named = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    return max(0, min(2, named - 1))
