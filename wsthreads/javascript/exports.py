"""Reads the exports of a script: its handler functions. If there are none, an error explains why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wsthreads.errors import HandlerError
from wsthreads.rooms.ticks import TICK_RATES, is_tick_rate
from wsthreads.sessions.source_names import did_you_mean

__all__ = ["CALLS", "HOOKS", "ROOM_CALLS", "Exports"]

#: The handler functions in JavaScript's spelling, and in Python's.
HOOKS = {
    "onHandshake": "on_handshake",
    "onOpen": "on_open",
    "onMessage": "on_message",
    "onRequest": "on_request",
    "onSuspend": "on_suspend",
    "onResume": "on_resume",
    "onClose": "on_close",
    "onError": "on_error",
    "onPresence": "on_presence",
    "onRoomStart": "on_room_start",
    "onPost": "on_post",
    "onTick": "on_tick",
    "onRoomEnd": "on_room_end",
    "onReload": "on_reload",
}

#: The function that is called for an event, by the kind of the event. (onError is called after another function has
#: failed.)
CALLS = {
    "handshake": "onHandshake",
    "open": "onOpen",
    "message": "onMessage",
    "binary": "onMessage",
    "request": "onRequest",
    "suspend": "onSuspend",
    "resume": "onResume",
    "close": "onClose",
    "presence": "onPresence",
    "reload": "onReload",
}

#: The name of the export that tells how often onTick is called.
TICK_RATE = "tickRate"

#: The function that is called for a room, by the kind of the call. In the order of the numbers in the runtime's
#: ``roomcalls.js``.
ROOM_CALLS = {
    "room_start": "onRoomStart",
    "post": "onPost",
    "tick": "onTick",
    "room_end": "onRoomEnd",
}

#: Kinds of functions that a script must not export as handlers: a call of them only returns a generator.
GENERATORS = {"generator function": "a generator function", "async generator function": "an async generator function"}


@dataclass(frozen=True, slots=True)
class Exports:
    """The names of all exports of a script, and the handler functions among them, in Python's spelling."""

    names: tuple[str, ...]
    hooks: frozenset[str]
    #: How many times in a second onTick is called. None if there is no onTick.
    tick_rate: float | None = None

    @classmethod
    def read(
        cls, script: str, exported: Iterable[tuple[str, str]], tick_rate: tuple[float | None, str] = (None, "")
    ) -> Exports:
        """Make `Exports` from pairs: a name, and its `typeof` or one of `GENERATORS`.

        `tick_rate` has two values: the exported tickRate if it is a number, otherwise None; and the exported value as
        text.

        Raises `HandlerError` if there is no handler function, or if an export with the name of one is not a function.
        Raises it for onTick without tickRate, for tickRate without onTick, and if tickRate is out of range.
        """
        kinds = dict(exported)
        for name in HOOKS:
            if kinds.get(name) in GENERATORS:
                kind = GENERATORS[kinds[name]]
                raise HandlerError(f"{script} exports {name} as {kind}, whose body never runs: drop the *", name)
            if kinds.get(name, "function") != "function":
                raise HandlerError(f"{script} exports {name} as {kinds[name]}; it must be a function", name)
        hooks = frozenset(hook for name, hook in HOOKS.items() if name in kinds)
        if not hooks:
            message = (
                f"{script} exports none of the functions {', '.join(HOOKS)}; it exports {', '.join(kinds) or 'nothing'}"
            )
            for name in kinds:
                meant = did_you_mean(name, HOOKS)
                if meant is not None:
                    raise HandlerError(f"{message}; did you mean {meant}?", name)
            if not kinds.keys() - {"default"}:
                message += "; export functions by name: export function onMessage(session, message) { … }"
            raise HandlerError(message)
        return cls(tuple(kinds), hooks, _checked_rate(script, kinds, *tick_rate))


def _checked_rate(script: str, kinds: dict[str, str], rate: float | None, shown: str) -> float | None:
    if TICK_RATE not in kinds:
        if "onTick" not in kinds:
            return None
        written = next((name for name in kinds if name.lower().replace("_", "") == TICK_RATE.lower()), None)
        meant = "" if written is None else f"; it exports {written}, did you mean {TICK_RATE}?"
        raise HandlerError(f"{script} exports onTick without {TICK_RATE}, {TICK_RATES}{meant}", written or "onTick")
    if rate is None or not is_tick_rate(rate):
        raise HandlerError(f"{script} exports {TICK_RATE} as {shown:.40}; it must be {TICK_RATES}", TICK_RATE)
    if "onTick" not in kinds:
        written = next((name for name in kinds if did_you_mean(name, ("onTick",))), None)
        meant = "" if written is None else f"; it exports {written}, did you mean onTick?"
        message = f"{script} exports {TICK_RATE} without onTick, the function that it is for{meant}"
        raise HandlerError(message, written or TICK_RATE)
    return rate
