"""Finds and reads a script's modules, inside the script's own folder and nowhere else.

A module's *id* is its path relative to the folder, with ``/``; it is what stacks show. A reload reads every file anew
under ids of another version (``chat.js?2``), since the engine never lets go of a module that it has. Version 1 has
no suffix.
"""

from __future__ import annotations

import os
import posixpath
import re

__all__ = ["ENTRY", "ModuleLoader", "bare_id"]

#: The name by which the runtime imports the script itself.
ENTRY = "wsthreads:script"

_VERSION = re.compile(r"\?(\d+)\Z")


class ModuleLoader:
    """The modules of the script at `path`. Used by the isolate's thread; `files` may be read by any.

    dukpy turns whatever is raised here into a text of its own, so nothing is: a module that may not be or cannot be
    had gets a name that says so, and is not found under it. `problem` keeps the whole text of the last one, since
    the engine cuts its messages at 255 bytes.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._version = 0
        self._root = self._entry = ""
        self.files: frozenset[str] = frozenset()
        self.problem: str | None = None
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
        if not os.path.isfile(path):
            return self._refused(name, base, "there is no such file in")
        return self._versioned(identity, str(self._version) if base.startswith("<") else version)

    def load(self, identity: str) -> tuple[str | None, str | None, str | None]:
        """(id, source, "module") as dukpy wants it, or three times None for an id that is a refusal."""
        if identity == self.problem:
            return None, None, None
        path = self._confined(bare_id(identity))
        try:
            if path is None:
                raise ValueError("it lies outside of the script's folder")
            with open(path, "rb") as file:
                source = file.read().decode("utf-8-sig")
        except (OSError, ValueError) as error:
            self.problem = f"{bare_id(identity)} cannot be read: {error}"
            return None, None, None
        self.files |= {path}
        if "await" in source:
            self.suspended.add(identity)
        return identity, source, "module"

    def _confined(self, identity: str) -> str | None:
        """The real path of a module, or None if that is not inside the folder."""
        path = os.path.realpath(os.path.join(self._root, identity))
        return path if os.path.commonpath((self._root, path)) == self._root else None

    def _refused(self, name: str, base: str, why: str) -> str:
        importer = "" if base.startswith("<") else f" in {base}"
        self.problem = f"import of {name!r}{importer}: {why} {self._root}"
        return self.problem

    def _versioned(self, identity: str, version: str) -> str:
        return identity if version == "1" else f"{identity}?{version}"


def _split(identity: str) -> tuple[str, str]:
    """An id without its version, and the version."""
    match = _VERSION.search(identity)
    return (identity[: match.start()], match[1]) if match else (identity, "1")


def bare_id(identity: str) -> str:
    return _split(identity)[0]
