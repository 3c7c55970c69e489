"""The sources of a script's modules, and the code that the engine got for them."""

from __future__ import annotations

from wsthreads.javascript.module_ids import bare_id
from wsthreads.javascript.stacks import Failure
from wsthreads.javascript.typescript import Compiled

__all__ = ["Sources"]


class Sources:
    """The sources of modules, by the modules' ids. The loader adds them. Only the isolate's thread uses this class."""

    def __init__(self) -> None:
        #: The texts of the files, by the module's id without its version.
        self.texts: dict[str, str] = {}
        #: The results of compiling TypeScript, by the module's id.
        self.compiled: dict[str, Compiled] = {}
        #: The texts that were put before the first lines of modules, by the module's id.
        self.prefixes: dict[str, str] = {}

    def given(self, identity: str) -> str | None:
        """The code that the engine got for a module."""
        compiled = self.compiled.get(identity)
        source = self.texts.get(bare_id(identity)) if compiled is None else compiled.code
        return None if source is None else self.prefixes.get(identity, "") + source

    def original(self, identity: str, line: int, column: int) -> tuple[int, int]:
        """The line and the column in the file, for a line and a column in the engine's code."""
        compiled = self.compiled.get(identity)
        if line == 1:
            column = max(1, column - len(self.prefixes.get(identity, "")))
        return (line, column) if compiled is None else compiled.original(line, column)

    def tidy(self, failure: Failure, before: str | None = None) -> Failure:
        """`Failure.tidy`, with the places in the script's files."""
        return failure.tidy(self.original, self.given, before)
