"""Finds and reads a script's modules, inside the script's own folder and nowhere else.

A module's *id* is its path relative to the folder, with ``/``; it is what stacks show. A reload reads every file anew
under ids of another version (``chat.js?2``), since the engine never lets go of a module that it has. Version 1 has
no suffix.
"""

from __future__ import annotations

import json
import os
import posixpath
import re

from wsthreads.errors import IsolateError, ScriptError
from wsthreads.javascript import typescript
from wsthreads.javascript.imports import (
    explain_missing,
    json_module,
    meant_files,
    place_of_import,
    without_attributes,
)
from wsthreads.javascript.stacks import Failure
from wsthreads.javascript.typescript import Compiled, Compiler

__all__ = ["ENTRY", "ModuleLoader", "bare_id"]

#: The name by which the runtime imports the script itself.
ENTRY = "wsthreads:script"

_VERSION = re.compile(r"\?(\d+)\Z")

_JSON = ".json"

#: What a text in JavaScript seems to import.
_IMPORT = re.compile(r"""\b(?:from|import)\s*\(?\s*["'](\.[^"'\n]*)["']""")

#: What the engine says of Node's older kind of module.
_COMMONJS = re.compile(r"ReferenceError: '?(?:require|module|exports)'? is not defined")


class ModuleLoader:
    """The modules of the script at `path`. Used by the isolate's thread; `files` may be read by any: the paths of all
    that it has read, real ones and as they were imported, which may be by a symbolic link, and of imports that are
    missing.

    dukpy turns whatever is raised here into a text of its own, so nothing is: a module that may not be or cannot be
    had gets a name that says so, and is not found under it. `problem` keeps the whole text of the last one, since
    the engine cuts its messages at 255 bytes.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._version = 0
        self._root = self._entry = ""
        self.files: frozenset[str] = frozenset()
        #: The ids of all modules so far, without their versions.
        self.modules: set[str] = set()
        self.problem: str | None = None
        self._problem_place: tuple[str, int, int] | None = None  # of the import
        self._compiled: dict[str, Compiled] = {}  # by id
        self._sources: dict[str, str] = {}  # as they are in the files, by id without its version
        #: Modules that may be suspended in a top-level `await`: those with that word in them, until they are known to
        #: have run.
        self.suspended: set[str] = set()
        self.renew()

    def renew(self) -> None:
        """Have the next import of `ENTRY` read all files again."""
        real = os.path.realpath(self._path)
        self._root, self._entry = os.path.split(real)
        self._version += 1
        self.problem = None

    def compile(self) -> None:
        """Compile what there is of TypeScript in the script, before it is run.

        Blocks for about a second if there is something new. Raises `ScriptError` for a syntax error, `IsolateError` if
        there is no compiler to be had. What is imported by a name that is computed is not found here: it is compiled
        when it is imported, against the script's deadline.
        """
        waiting, seen = [self._entry], set()
        with Compiler() as compiler:
            while waiting:
                identity = waiting.pop()
                path = self._confined(identity)
                if identity in seen or path is None or identity.endswith((".d.ts", _JSON)):  # no code
                    continue
                seen.add(identity)
                try:
                    source = _source_of(path)
                except (OSError, ValueError):
                    continue  # whoever imports it is told
                if identity.endswith(typescript.SUFFIX):
                    imports = self._checked(compiler.compile(identity, source), identity).imports
                else:
                    imports = tuple(_IMPORT.findall(source))
                folder = posixpath.dirname(identity)
                waiting += [posixpath.normpath(posixpath.join(folder, name)) for name in imports]

    def tidy(self, failure: Failure) -> Failure:
        """`Failure.tidy`, with places in TypeScript as they are in its source."""
        return failure.tidy(self._original)

    def _original(self, identity: str, line: int, column: int) -> tuple[int, int]:
        compiled = self._compiled.get(identity)
        return (line, column) if compiled is None else compiled.original(line, column)

    def script_error(self, failure: Failure) -> ScriptError:
        """The `ScriptError` for what the engine said when the script did not load."""
        failure = self.tidy(failure)
        message = "\n".join(message for message, _ in failure.parts)
        if self.problem is not None and "cannot find module" in message:
            return ScriptError(self.problem, *(self._problem_place or (self._path,)))
        missing = explain_missing(message, self._sources)
        if missing is not None:
            return ScriptError(missing.message, self._as_written(missing.module), missing.line, missing.column)
        if _COMMONJS.search(message):
            message += "; a script is an ES module: import { … } from './file.js', export function …"
        place = failure.place(self.modules)
        if place is None:
            return ScriptError(message, self._path)
        column = None if failure.was_parsed else place.column  # the parser's is not that of the mistake (dukpy 0.6)
        return ScriptError(message, self._as_written(place.file), place.line, column)

    def _as_written(self, identity: str) -> str:
        """The path of a module, beside that of the script as the user wrote it."""
        return self._path if identity == self._entry else os.path.join(os.path.dirname(self._path), identity)

    @property
    def served(self) -> bool:
        """Whether the script was read through this loader, which is what keeps its imports confined."""
        return bool(self.files)

    def normalize(self, base: str, name: str) -> str:
        """The id of the module that `base`, an id, imports as `name`; or the reason why there is none."""
        if name == ENTRY:
            return self._versioned(self._entry, str(self._version))
        base, version = _split(base)  # <...> is a text that was evaluated, which has neither place nor version
        if not name.startswith(("./", "../")) or "\\" in name:
            return self._refused(name, base, "imports are relative paths such as './lib.js', inside of")
        identity = posixpath.normpath(posixpath.join(posixpath.dirname(base), name))
        path = self._confined(identity)
        if path is None:
            return self._refused(name, base, "it lies outside of")
        self.files |= {os.path.join(self._root, identity)}
        if not os.path.isfile(path):
            return self._refused(name, base, "there is no such file in", self._meant(name, base))
        return self._versioned(identity, str(self._version) if base.startswith("<") else version)

    def load(self, identity: str) -> tuple[str | None, str | None, str | None]:
        """(id, source, "module") as dukpy wants it, or three times None for an id that is a refusal."""
        if identity == self.problem:
            return None, None, None
        path = self._confined(bare_id(identity))
        try:
            if path is None:
                raise ValueError("it lies outside of the script's folder")
            source = _source_of(path)
            self.files |= {path}
            self.modules.add(bare_id(identity))
            self._sources[bare_id(identity)] = source
            if path.endswith(_JSON):
                source = self._json(identity, source)
            elif path.endswith(typescript.SUFFIX):
                source = self._compile(identity, source)
            source = without_attributes(source)
        except (OSError, ValueError, IsolateError) as error:
            self.problem, self._problem_place = f"{bare_id(identity)} cannot be read: {error}", None
            return None, None, None
        except ScriptError as error:  # whoever imports it gets it, as from the engine's own parser
            text = str(error).replace(": SyntaxError: ", ": ")
            source = f"export default 0; throw new SyntaxError({json.dumps(text)});"
        if "await" in source:
            self.suspended.add(identity)
        return identity, source, "module"

    def _json(self, identity: str, source: str) -> str:
        try:
            return json_module(source)
        except ValueError as error:
            raise ScriptError(f"no JSON: {error}", self._as_written(bare_id(identity))) from None

    def _compile(self, identity: str, source: str) -> str:
        with Compiler() as compiler:
            compiled = self._compiled[identity] = compiler.compile(bare_id(identity), source)
        return self._checked(compiled, bare_id(identity)).code

    def _checked(self, compiled: Compiled, identity: str) -> Compiled:
        if compiled.error is not None:
            line, column, message = compiled.error
            raise ScriptError(f"SyntaxError: {message}", self._as_written(identity), line, column)
        return compiled

    def _confined(self, identity: str) -> str | None:
        """The real path of a module, or None if that is not inside the folder."""
        path = os.path.realpath(os.path.join(self._root, identity))
        return path if os.path.commonpath((self._root, path)) == self._root else None

    def _meant(self, name: str, base: str) -> str:
        """What to say of a file that there is in place of the one that is imported."""
        folder = posixpath.dirname(base)

        def exists(other: str) -> bool:
            path = self._confined(posixpath.normpath(posixpath.join(folder, other)))
            return path is not None and os.path.isfile(path)

        meant = meant_files(name, exists)
        return "" if meant is None else f"; there is {meant}: imports name the file as it is, with its suffix"

    def _refused(self, name: str, base: str, why: str, meant: str = "") -> str:
        is_file = not base.startswith("<")
        importer = f" in {base}" if is_file else ""
        place = place_of_import(name, self._sources.get(base, "")) if is_file else None
        self._problem_place = None if place is None else (self._as_written(base), *place)
        self.problem = f"import of {name!r}{importer}: {why} {self._root}{meant}"
        return self.problem

    def _versioned(self, identity: str, version: str) -> str:
        return identity if version == "1" else f"{identity}?{version}"


def _source_of(path: str) -> str:
    """Raises `OSError`, and `ValueError` for what is not UTF-8."""
    with open(path, "rb") as file:
        return file.read().decode("utf-8-sig")


def _split(identity: str) -> tuple[str, str]:
    """An id without its version, and the version."""
    match = _VERSION.search(identity)
    return (identity[: match.start()], match[1]) if match else (identity, "1")


def bare_id(identity: str) -> str:
    return _split(identity)[0]
