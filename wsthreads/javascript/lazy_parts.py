"""Loads parts of the runtime from ``runtime/lazy`` when a script first uses them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from wsthreads.javascript.calls import Function

if TYPE_CHECKING:
    from wsthreads.javascript.engine import Engine

__all__ = ["LazyParts"]


class LazyParts:
    """Functions that the runtime's ``lazy.js`` calls, in the isolate's thread."""

    def __init__(self) -> None:
        self.engine: Engine | None = None

    def functions(self) -> dict[str, Function]:
        return {"load_part": self._load, "source_of_part": _expression}

    def _load(self, name: str) -> bool:
        """Put the function of a part into the parcel.

        Returns false if the call has no time left, or the heap is full.
        """
        assert self.engine is not None
        return self.engine.put_value(_expression(name))


@cache
def _expression(name: str) -> str:
    """The source of a function of `tools` that returns the part.

    `name` is the name of a part that the runtime knows.
    """
    source = (Path(__file__).with_name("runtime") / "lazy" / f"{name}.js").read_text("utf-8")
    return f'((tools) => {{ "use strict";\n{source}}})'
