"""Finds and reads the modules of a script, only in the script's own folder and its packages.

A reload reads every file again, and the modules get ids with another version (see `module_ids`). Modules of packages
keep their variables, unless a file of a package has changed.
"""

from __future__ import annotations

import difflib
import json
import os
import posixpath
import re
from pathlib import Path

from wsthreads.errors import IsolateError, ScriptError
from wsthreads.javascript import typescript
from wsthreads.javascript.imports import (
    BUILT_IN,
    BUILT_IN_ID,
    explain_missing,
    json_module,
    meant_files,
    place_of_import,
    without_attributes,
)
from wsthreads.javascript.module_ids import bare_id, split_id, versioned
from wsthreads.javascript.packages import PackageError, Packages, find_commonjs, for_production, is_package_name
from wsthreads.javascript.python_functions import PythonFunctions
from wsthreads.javascript.sources import Sources
from wsthreads.javascript.stacks import Failure
from wsthreads.javascript.typescript import Compiled, Compiler

__all__ = ["ENTRY", "ModuleLoader"]

#: The name by which the runtime imports the script itself.
ENTRY = "wsthreads:script"

#: The exports of the module `BUILT_IN`.
EXPORTS = (
    "room", "user", "session", "sessions", "env", "RequestError", "RequestTimeout", "SessionClosed", "SessionMoved",
)  # fmt: skip

#: The prefix of the ids of modules that the application provides.
EMBEDDED = "wsthreads:python:"

_JSON, _PYTHON = ".json", ".py"

_NO_ES_MODULE = (
    "the package is CommonJS, Node's older kind of modules, and scripts are ES modules: look for a newer version or "
    "another package, or bundle it with esbuild"
)

#: Matches most imports in JavaScript. A pattern cannot find all.
_IMPORT = re.compile(r"""\b(?:from|import)\s*\(?\s*["'](\.[^"'\n]*)["']""")

#: The engine's error for a CommonJS module, Node's older kind.
_COMMONJS = re.compile(r"ReferenceError: '?(?:require|module|exports)'? is not defined")

_PROCESS = re.compile(r"ReferenceError: '?process'? is not defined")


class ModuleLoader:
    """The modules of the script at `path`. Only the isolate's thread uses this class.

    `files` has the paths of all files that were read, and of imports that are missing. Any thread may read `files`. A
    file that was imported through a symbolic link is in it twice: with its real path, and with the path of the import.

    dukpy replaces the text of every exception, so the methods that dukpy calls raise nothing. Instead, a module that
    cannot be loaded gets the error message as its name. No module has this name. `problem` has the complete text of the
    last of these messages, because the engine cuts messages at 255 bytes.
    """

    def __init__(self, path: str, python: PythonFunctions | None = None) -> None:
        self._path = path
        #: The Python functions that the script imports.
        self.python = PythonFunctions() if python is None else python
        self._runtime = ""
        self._is_compiling = False  # True only before the script runs
        self._version = 0
        self._root = self._entry = ""
        self._packages = Packages("")
        self._package_version = 1
        self._package_stamps: dict[str, tuple[int, int]] = {}  # of the packages' files, by path: time and size
        self._meant_by: dict[tuple[str, str], str] = {}  # the ids of packages' files, by importer and imported name
        self._commonjs: dict[str, bool] = {}  # whether a file is a CommonJS module, by path
        self.files: frozenset[str] = frozenset()
        #: The ids of all modules that were loaded so far, without their versions.
        self.modules: set[str] = set()
        self.problem: str | None = None
        self._refusal: ScriptError | None = None  # `problem` as an error, which is raised if the script does not load
        self._thrown: dict[str, ScriptError] = {}  # errors that unreadable modules throw when they run, by text
        self._sources = Sources()
        self._built_in = ""
        #: Modules that may wait in a top-level `await`: each contains the word, and has not run to its end.
        self.suspended: set[str] = set()
        self.renew()

    def renew(self) -> None:
        """At the next import of `ENTRY`, read all files again."""
        real = os.path.realpath(self._path)
        self._root, self._entry = os.path.split(real)
        self._version += 1
        self._packages = Packages(self._root)
        if any(_stamp_of(path) != stamp for path, stamp in self._package_stamps.items()):
            self._package_version = self._version
            self._package_stamps.clear()
        self.problem = self._refusal = None
        self._thrown.clear()

    def provide(self, runtime: str) -> None:
        """Provide the module `BUILT_IN`. Its exports are in the property `module` of the global constant `runtime`."""
        self._runtime = runtime
        self._built_in = "".join(f"export const {name} = {runtime}.module.{name};\n" for name in EXPORTS)

    def compile(self) -> None:
        """Compile the script's TypeScript files before it runs.

        Blocks for about a second if there are new files. Raises `ScriptError` for a syntax error, `IsolateError`
        without a compiler. A file that is imported by a computed name is compiled at its import. This counts toward the
        script's time limit.
        """
        self._is_compiling = True
        try:
            self._compile_all()
        finally:
            self._is_compiling = False

    def _compile_all(self) -> None:
        waiting, seen = [self._entry], set()
        with Compiler() as compiler:
            while waiting:
                identity = waiting.pop()
                path = self._confined(identity)
                if identity in seen or path is None or identity.endswith((".d.ts", _JSON)):  # files without code
                    continue
                seen.add(identity)
                if identity.endswith(_PYTHON) and os.path.isfile(path):
                    self._python(versioned(identity, str(self._version)), path)
                if identity.endswith(_PYTHON):
                    continue
                try:
                    source = _source_of(path)
                except (OSError, ValueError):
                    continue  # the import will report the error
                if identity.endswith(typescript.SUFFIX):
                    imports = self._checked(compiler.compile(identity, source), identity).imports
                else:
                    imports = tuple(_IMPORT.findall(source))
                folder = posixpath.dirname(identity)
                waiting += [posixpath.normpath(posixpath.join(folder, name)) for name in imports]

    def folder(self) -> str:
        """The folder of the script, without symbolic links."""
        return self._root

    def tidy(self, failure: Failure, before: str | None = None) -> Failure:
        """`Failure.tidy`, with the places in the script's files."""
        return self._sources.tidy(failure, before)

    def script_error(self, failure: Failure) -> ScriptError:
        """Convert the engine's error to a `ScriptError`, when the script did not load."""
        failure = self._sources.tidy(failure)
        message = "\n".join(message for message, _ in failure.parts)
        if self._refusal is not None and "cannot find module" in message:
            return self._refusal
        if message in self._thrown:
            return self._thrown[message]
        missing = explain_missing(message, {**self._sources.texts, BUILT_IN_ID: self._built_in}, self._meant_by)
        if missing is not None:
            return ScriptError(missing.message, self._as_written(missing.module), missing.line, missing.column)
        if _COMMONJS.search(message):
            message += "; a script is an ES module: import { … } from './file.js', export function …"
        if _PROCESS.search(message):
            message += "; for process.env.NAME there are --env-file and import { env } from 'wsthreads'"
        place = failure.place(self.modules) or failure.place(self._sources.texts)
        if place is None:
            return ScriptError(message, self._path)
        column = None if failure.was_parsed else place.column  # the parser of dukpy 0.6 gives a wrong column
        return ScriptError(message, self._as_written(place.file), place.line, column)

    def _as_written(self, identity: str) -> str:
        """The path of a module. It begins with the folder of the script, as the user wrote it."""
        return self._path if identity == self._entry else os.path.join(os.path.dirname(self._path), identity)

    @property
    def served(self) -> bool:
        """Whether the script was read by this loader. If not, its imports would not be confined to the folder."""
        return bool(self.files)

    def normalize(self, base: str, name: str) -> str:
        """The id of the module that the module `base` imports as `name`. If it cannot be imported, an error text."""
        if name == ENTRY:
            return versioned(self._entry, str(self._version))
        if name == BUILT_IN:
            return BUILT_IN_ID
        if name in self.python.provided:
            return EMBEDDED + name
        base, version = split_id(base)  # an id such as <…> belongs to evaluated code, without a place or a version
        if is_package_name(name) and not name.startswith(f"{BUILT_IN}/"):
            return self._package(name, base, version)
        if not name.startswith(("./", "../")) or "\\" in name:
            known = f"imports are {BUILT_IN!r}, packages, or relative paths such as './lib.js', inside of {self._root}"
            return self._refused(name, base, known)
        identity = posixpath.normpath(posixpath.join(posixpath.dirname(base), name))
        path = self._confined(identity)
        if path is None:
            return self._refused(name, base, f"it is outside of {self._root}")
        if self._packages.owner(path) is not None:
            return self._inner(identity, path, name, base, version)
        if any(part.startswith(".") and part != "." for part in identity.split("/")):
            return self._refused(name, base, "a name that begins with a dot, such as .env, cannot be imported")
        self.files |= {os.path.join(self._root, identity)}
        if not os.path.isfile(path):
            return self._refused(name, base, f"there is no such file in {self._root}", self._meant(name, base))
        if path.endswith(_PYTHON) and self._is_in_package(base):
            return self._refused(name, base, "a package cannot import a Python file of the script")
        return versioned(identity, str(self._version) if base.startswith("<") else version)

    def _is_in_package(self, base: str) -> bool:
        """Whether a module is a file of a package."""
        return self._packages.owner(os.path.realpath(os.path.join(self._root, base))) is not None

    def _package(self, name: str, base: str, version: str) -> str:
        """The id of the file that an import of a package means."""
        importer = os.path.realpath(os.path.join(self._root, self._entry if base.startswith("<") else base))
        try:
            path = self._packages.find(name, importer)
        except PackageError as error:
            self.files |= {self._packages.place_of(name)}  # so that a reload happens once the package exists
            meant = difflib.get_close_matches(name, (BUILT_IN, *self.python.provided), n=1, cutoff=0.8)
            hint = f"; did you mean {meant[0]!r}?" if meant else self._beside(name, base)
            # If the name is misspelled, do not suggest to install it.
            return self._refused(name, base, "there is no such package" if hint else str(error), hint)
        if self._packages.owner(importer) is None:
            version = str(self._package_version)
        identity = self._meant_by[base, name] = _relative(self._packages.as_found(path), self._root)
        return self._inner(identity, path, name, base, version)

    def _beside(self, name: str, base: str) -> str:
        """A hint at a file next to the importer that an import of a package may mean."""
        path = self._confined(posixpath.normpath(posixpath.join(posixpath.dirname(base), name)))
        if path is not None and os.path.isfile(path):
            return f"; there is ./{name}: relative paths begin with ./"
        return self._meant(f"./{name}", base)

    def _inner(self, identity: str, path: str, name: str, base: str, version: str) -> str:
        """The id of a package's file. A relative import may omit the suffix, as in Node's older modules."""
        if not os.path.isfile(path):
            found = meant_files(path, lambda other: self._confined(other) is not None and os.path.isfile(other))
            if found is None:
                return self._refused(name, base, "there is no such file")
            identity, path = _relative(self._packages.as_found(found), self._root), found
        if path.endswith(_PYTHON):
            return self._refused(name, base, f"a Python file must be in {self._root}, not in a package")
        if path.endswith((".node", ".wasm")):
            return self._refused(name, base, "scripts have no WebAssembly and no Node")
        if path.endswith(".cjs") or (path.endswith(".js") and self._is_commonjs(path)):
            return self._refused(name, base, _NO_ES_MODULE)
        return versioned(identity, version)

    def _is_commonjs(self, path: str) -> bool:
        """Whether a package's file is a CommonJS module.

        The method looks at the source of the file, as bundlers do, because package.json may be wrong.
        """
        if path not in self._commonjs:
            try:
                self._commonjs[path] = find_commonjs(_source_of(path))
            except (OSError, ValueError):
                self._commonjs[path] = False
        return self._commonjs[path]

    def load(self, identity: str) -> tuple[str | None, str | None, str | None]:
        """Returns id, source and "module", for dukpy. If the id is an error message, returns None three times."""
        if identity == self.problem:
            return None, None, None
        if identity == BUILT_IN_ID:
            return identity, self._built_in, "module"
        if identity.startswith(EMBEDDED):
            return identity, self.python.embedded_source(identity.removeprefix(EMBEDDED), self._runtime), "module"
        path = self._confined(bare_id(identity))
        try:
            if path is None:
                raise ValueError("it is outside of the script's folder")
            is_python = path.endswith(_PYTHON)
            source = self._python(identity, path) if is_python else _source_of(path)
            if self._packages.owner(path) is not None:
                self._package_stamps[path] = _stamp_of(path)
                source = for_production(source)
            else:
                self.files |= {path}
                self.modules.add(bare_id(identity))
            self._sources.texts[bare_id(identity)] = source
            if path.endswith(_JSON):
                source = self._json(identity, source)
            elif path.endswith(typescript.SUFFIX):
                source = self._compile(identity, source)
            source = without_attributes(source)
            if "import.meta" in source:
                source = self._prefix(identity, path, source) + source
        except (OSError, ValueError, IsolateError) as error:
            self.problem = f"{bare_id(identity)} cannot be read: {error}"
            self._refusal = ScriptError(self.problem, self._path)
            return None, None, None
        except ScriptError as error:  # the importer gets the error, as if the engine's parser had found it
            text = str(error).replace(": SyntaxError: ", ": ")
            source = f"export default 0; throw new SyntaxError({json.dumps(text)});"
            self._thrown[f"SyntaxError: {text}"] = error
        if "await" in source:
            self.suspended.add(identity)
        return identity, source, "module"

    def _prefix(self, identity: str, path: str, source: str) -> str:
        """The code that gives a module its `import.meta`.

        The code goes into the first line of the module, so that the line numbers stay the same.
        """
        told = {"url": Path(path).as_uri(), "filename": path, "dirname": os.path.dirname(path)}
        prefix = "".join(f"import.meta.{name}={json.dumps(value)};" for name, value in told.items())
        self._sources.prefixes[identity] = prefix + ("//" if source.startswith("#!") else "")
        return self._sources.prefixes[identity]

    def _python(self, identity: str, path: str) -> str:
        """The ES module for a Python file. The file itself runs only once, before the script runs."""
        name = bare_id(identity)
        if not self._is_compiling and not self.python.has(identity):
            # At this time, the file would run in the isolate's thread, and block all sessions.
            raise ScriptError("a Python file must be imported by a literal name: import … from './store.py'", path)
        try:
            return self.python.source(identity, path, name, self._runtime)
        except ScriptError as error:
            if error.path == path:
                error = ScriptError(error.message, self._as_written(name), error.line, error.column)
            raise error from error.__cause__

    def _json(self, identity: str, source: str) -> str:
        try:
            return json_module(source)
        except json.JSONDecodeError as error:
            place = self._as_written(bare_id(identity)), error.lineno, error.colno
            raise ScriptError(f"invalid JSON: {error.msg}", *place) from None

    def _compile(self, identity: str, source: str) -> str:
        with Compiler() as compiler:
            compiled = self._sources.compiled[identity] = compiler.compile(bare_id(identity), source)
        return self._checked(compiled, bare_id(identity)).code

    def _checked(self, compiled: Compiled, identity: str) -> Compiled:
        if compiled.error is not None:
            line, column, message = compiled.error
            raise ScriptError(f"SyntaxError: {message}", self._as_written(identity), line, column)
        return compiled

    def _confined(self, identity: str) -> str | None:
        """The real path of a module. None if the path is outside of the folder and its packages."""
        path = os.path.realpath(os.path.join(self._root, identity))
        is_inside = os.path.commonpath((self._root, path)) == self._root or self._packages.has(path)
        return path if is_inside else None

    def _meant(self, name: str, base: str) -> str:
        """A hint at an existing file that the import may mean."""
        folder = posixpath.dirname(base)

        def exists(other: str) -> bool:
            identity = posixpath.normpath(posixpath.join(folder, other))
            path = self._confined(identity)
            return path is not None and os.path.isfile(path) and identity != base

        meant = meant_files(name, exists)
        return "" if meant is None else f"; there is {meant}: imports name the file as it is, with its suffix"

    def _refused(self, name: str, base: str, why: str, meant: str = "") -> str:
        is_file = not base.startswith("<")
        place = place_of_import(name, self._sources.texts.get(base, "")) if is_file else None
        importer = (f" in {base}" if is_file else "") if place is None else f" at {base}:{place[0]}:{place[1]}"
        self.problem = f"import of {name!r}{importer}: {why}{meant}"
        path = self._as_written(base) if is_file else self._path
        self._refusal = ScriptError(f"import of {name!r}: {why}{meant}", path, *(place or ()))
        return self.problem


def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _stamp_of(path: str) -> tuple[int, int]:
    """The time and the size of a file. The result is different if the file has changed or no longer exists."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, -1
    return status.st_mtime_ns, status.st_size


def _source_of(path: str) -> str:
    """The text of a file. Raises `OSError`. Raises `ValueError` if the text is not UTF-8."""
    with open(path, "rb") as file:
        return file.read().decode("utf-8-sig")
