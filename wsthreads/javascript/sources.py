"""The sources of a script's modules, and what the engine was given for them."""

from __future__ import annotations

from wsthreads.javascript.module_ids import bare_id
from wsthreads.javascript.stacks import Failure
from wsthreads.javascript.typescript import Compiled

__all__ = ["Sources"]


class Sources:
    """Filled by the loader. Used by the isolate's thread."""

    def __init__(self) -> None:
        #: What is in the files, by id without its version.
        self.texts: dict[str, str] = {}
        #: What TypeScript became, by id.
        self.compiled: dict[str, Compiled] = {}
        #: What stands before a module's first line, by id.
        self.prefixes: dict[str, str] = {}

    def given(self, identity: str) -> str | None:
        """What the engine has for a module."""
        compiled = self.compiled.get(identity)
        source = self.texts.get(bare_id(identity)) if compiled is None else compiled.code
        return None if source is None else self.prefixes.get(identity, "") + source

    def original(self, identity: str, line: int, column: int) -> tuple[int, int]:
        """The line and column in the file, from those in what the engine has."""
        compiled = self.compiled.get(identity)
        if line == 1:
            column = max(1, column - len(self.prefixes.get(identity, "")))
        return (line, column) if compiled is None else compiled.original(line, column)

    def tidy(self, failure: Failure, before: str | None = None) -> Failure:
        """`Failure.tidy`, with the places as they are in the files."""
        return failure.tidy(self.original, self.given, before)
