"""What a script exports: its handler functions, or an error that explains why there are none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wsthreads.errors import HandlerError
from wsthreads.sessions.source_names import did_you_mean

__all__ = ["CALLS", "HOOKS", "Exports"]

#: The handler functions in JavaScript's spelling, and in Python's.
HOOKS = {
    "onHandshake": "on_handshake",
    "onOpen": "on_open",
    "onMessage": "on_message",
    "onClose": "on_close",
    "onError": "on_error",
    "onPresence": "on_presence",
    "onReload": "on_reload",
}

#: The function that an event calls, by its kind. (onError is called after another function has failed.)
CALLS = {
    "handshake": "onHandshake",
    "open": "onOpen",
    "message": "onMessage",
    "binary": "onMessage",
    "close": "onClose",
    "presence": "onPresence",
    "reload": "onReload",
}

#: Functions that only return a generator when they are called.
GENERATORS = {"generator function": "a generator function", "async generator function": "an async generator function"}


@dataclass(frozen=True, slots=True)
class Exports:
    """All exported names, and the handler functions among them in Python's spelling."""

    names: tuple[str, ...]
    hooks: frozenset[str]

    @classmethod
    def read(cls, script: str, exported: Iterable[tuple[str, str]]) -> Exports:
        """From pairs of a name and its `typeof`, or one of `GENERATORS`.

        Raises `HandlerError` if there is no handler function, or one that is not a function.
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
        return cls(tuple(kinds), hooks)
