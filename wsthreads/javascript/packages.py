"""Finds the files of npm packages, for bare imports such as ``import { nanoid } from "nanoid"``.

A package is in a folder ``node_modules``, next to the importing file or in a folder above it. The package's
``package.json`` decides which of its files is imported. The rules are those of Node
(https://nodejs.org/api/packages.html), with the conditions that Workers use. Files outside of these ``node_modules``
are never imported, not even through a symbolic link.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["PackageError", "Packages", "find_commonjs", "for_production", "is_package_name"]

#: The conditions in ``exports`` that are fulfilled. If several of them are there, the first one in package.json is
#: used.
CONDITIONS = {"worker", "browser", "module", "import", "default"}

_FOLDER = "node_modules"

# These patterns are texts. They are compiled when the first package is imported, not at each start.
_NAME = r"(?P<package>(?:@[\w.~-]+/)?[A-Za-z0-9_~-][\w.~-]*)(?P<subpath>(?:/[^\\%\x00-\x1f\ud800-\udfff]*)?)"

#: The modules that Node provides.
_OF_NODE = {
    "assert", "async_hooks", "buffer", "child_process", "cluster", "console", "constants", "crypto", "dgram",
    "diagnostics_channel", "dns", "domain", "events", "fs", "http", "http2", "https", "inspector", "module", "net",
    "os", "path", "perf_hooks", "process", "punycode", "querystring", "readline", "repl", "stream", "string_decoder",
    "sys", "timers", "tls", "trace_events", "tty", "url", "util", "v8", "vm", "wasi", "worker_threads", "zlib",
}  # fmt: skip

#: The suffixes that an import from a package without ``exports`` may leave out, and the names of the package's main
#: file.
_ENDINGS = ("", ".js", ".mjs", ".json", "/index.js", "/index.mjs")

#: These patterns match ES modules and CommonJS modules, including minified ones.
_ES_MODULE = (
    r"""(?:\A|[;}\n/])[ \t]*(?:import[ \t]*(?:[\w$*{]|["'])|import\.meta|"""
    r"""export[ \t]*(?:[{*]|default\b|(?:const|let|var|function|class|async)\b))"""
)
_OLD_MODULE = r"\b(?:module\.exports|exports\.\w+|Object\.defineProperty\(\s*exports|require\(\s*['\"])"

#: `_MODE` is replaced by `_PRODUCTION` in packages, as bundlers do. Both texts have the same length, so all columns
#: stay the same.
_MODE = "process.env.NODE_ENV"
_PRODUCTION = '"production"'.ljust(len(_MODE))


class PackageError(Exception):
    """A package is missing or cannot be used. The text tells why, and what to do."""


def is_package_name(name: str) -> bool:
    """Whether an import of `name` is an import of a package."""
    return re.fullmatch(_NAME, name) is not None or name.startswith(("node:", "#"))


def find_commonjs(source: str) -> bool:
    """Whether a source is a CommonJS module, as far as patterns can tell."""
    return re.search(_OLD_MODULE, source) is not None and re.search(_ES_MODULE, source) is None


def for_production(source: str) -> str:
    """Replace ``process.env.NODE_ENV`` in the source of a package. Lines and columns stay the same."""
    return source.replace(_MODE, _PRODUCTION)


class Packages:
    """Finds the packages that files under `root` may import."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._roots: dict[str, str] = {}  # the folders node_modules as they were found, by their real paths
        # the contents of package.json, by the folder of the package
        self._described: dict[str, dict[str, Any] | None] = {}

    def owner(self, path: str) -> str | None:
        """The real folder of the package that the file with this real path belongs to.

        None for a file of the script itself.
        """
        before, found, after = path.rpartition(f"{os.sep}{_FOLDER}{os.sep}")
        if not found:
            return None
        names = after.split(os.sep)
        return os.path.join(before, _FOLDER, *names[: 2 if names[0].startswith("@") else 1])

    def find(self, name: str, importer: str) -> str:
        """The real path of the file that an import of `name` in the file `importer` means. Raises `PackageError`."""
        if name.startswith("#"):
            return self._find_private(name, importer)
        if name.startswith("node:"):
            raise PackageError(self._of_node(name.removeprefix("node:"), importer))
        match = re.fullmatch(_NAME, name)
        if match is None:
            raise PackageError(f"{name:.80} is not the name of a package")
        package, subpath = match["package"], "." + match["subpath"]
        own = self.owner(importer)
        if own is not None and self._json(own).get("name") == package and "exports" in self._json(own):
            return self._exported(own, package, subpath)
        for folder in self._folders(importer):
            found = os.path.join(folder, package)
            if os.path.isdir(found):
                root = os.path.realpath(folder)
                self._roots.setdefault(root, folder)
                real = os.path.realpath(found)
                if not self.has(real):
                    raise PackageError(f"the package is a link to {real}, which is outside of {root}")
                return self._exported(real, package, subpath)
        if package in _OF_NODE:
            raise PackageError(self._of_node(package, importer))
        needs = "" if own is None else f"{self._json(own).get('name', own)} needs the package, and "
        python = "" if own else f", nor a Python module of this name (--module {package}=FILE, modules={{…}})"
        raise PackageError(f"{needs}there is no such package{python}: npm install {package} in {self._root}")

    def has(self, path: str) -> bool:
        """Whether a real path is inside a ``node_modules`` that was found."""
        return any(path == root or path.startswith(root + os.sep) for root in self._roots)

    def as_found(self, path: str) -> str:
        """The path of a package's file as the file was found. Its ``node_modules`` may be a symbolic link."""
        for root, folder in self._roots.items():
            if path.startswith(root + os.sep):
                return folder + path[len(root) :]
        return path

    def place_of(self, package: str) -> str:
        """The path that the package.json of a missing package would have."""
        match = re.fullmatch(_NAME, package)
        return os.path.join(self._root, _FOLDER, match["package"] if match else package, "package.json")

    def _of_node(self, module: str, importer: str) -> str:
        own = self.owner(importer)
        if own is None:
            return f"{module} is a module of Node, which scripts do not have"
        name = self._json(own).get("name", os.path.basename(own))
        return f"the package {name} needs Node's module {module}, which scripts do not have"

    def _folders(self, importer: str) -> Iterator[str]:
        """The folders ``node_modules`` next to a file and in the folders above, the nearest first."""
        folder = os.path.dirname(importer)
        while True:
            if os.path.basename(folder) != _FOLDER:
                yield os.path.join(folder, _FOLDER)
            above = os.path.dirname(folder)
            if above == folder:
                return
            folder = above

    def _json(self, folder: str) -> dict[str, Any]:
        """The contents of a package's package.json.

        Empty if there is none. Raises `PackageError` if it is not valid.
        """
        if folder not in self._described:
            path = os.path.join(folder, "package.json")
            try:
                with open(path, "rb") as file:
                    data = json.loads(file.read())
            except FileNotFoundError:
                data = {}
            except (OSError, ValueError, RecursionError) as error:
                raise PackageError(f"{path} cannot be read: {error}") from None
            self._described[folder] = data if isinstance(data, dict) else {}
        return self._described[folder] or {}

    # These methods find the file of a package that is imported.

    def _exported(self, folder: str, package: str, subpath: str) -> str:
        data = self._json(folder)
        exports = data.get("exports")
        if exports is None:
            return self._without_exports(folder, package, subpath, data)
        if not isinstance(exports, dict) or not any(key.startswith(".") for key in exports):
            exports = {".": exports}
        target = _matched(exports, subpath)
        if target is None:
            names = ", ".join(key for key in exports if key.startswith("./"))
            what = f"the package.json of {package} exports no {subpath} for ES modules"
            raise PackageError(what + (f"; it exports {names:.300}" if names else ""))
        return self._file(folder, package, target)

    def _find_private(self, name: str, importer: str) -> str:
        """The file for an import of ``#name``.

        The package.json of the importer maps it to a file of this or another package.
        """
        own = self.owner(importer)
        imports = {} if own is None else self._json(own).get("imports", {})
        target = _matched(imports, name) if own is not None and isinstance(imports, dict) else None
        if own is None:
            raise PackageError('this file belongs to no package, so no package.json with "imports" applies to it')
        if target is None:
            raise PackageError(f'{os.path.join(own, "package.json")} has no {name:.100} for ES modules under "imports"')
        if target.startswith("./"):
            return self._file(own, name, target)
        if target.startswith("#"):
            raise PackageError(f"package.json maps {name:.100} to {target:.80}, which is neither a file nor a package")
        return self.find(target, importer)

    def _without_exports(self, folder: str, package: str, subpath: str, data: dict[str, Any]) -> str:
        if subpath != ".":
            names = [subpath]
        else:
            names = [name for name in (data.get("module"), data.get("main")) if isinstance(name, str)] + ["index"]
        for name in names:
            for ending in _ENDINGS:
                path = os.path.normpath(os.path.join(folder, name)) + ending
                if os.path.isfile(path):
                    return self._file(folder, package, os.path.relpath(path, folder))
        what = "no main file" if subpath == "." else f"no file {subpath}"
        if subpath == "." and "types" in data:
            what += ", only types"
        raise PackageError(f"the package {package} in {folder} has {what}")

    def _file(self, folder: str, package: str, target: str) -> str:
        path = os.path.realpath(os.path.join(folder, target))
        if not self.has(path) or not path.startswith(folder + os.sep):
            raise PackageError(f"the file {target:.100} of the package {package} is outside of {folder}")
        if not os.path.isfile(path):
            raise PackageError(f"{package} has no file {target:.200} in {folder}")
        return path


def _matched(entries: dict[str, Any], name: str) -> str | None:
    """The file to which ``exports`` or ``imports`` map a name. None if they do not have the name."""
    if name in entries and "*" not in name:
        return _chosen(entries[name], "")
    best: tuple[str, str] | None = None
    for pattern in entries:
        before, star, after = pattern.partition("*")
        if star and name.startswith(before) and name.endswith(after) and len(name) >= len(pattern):
            if best is None or len(before) > len(best[0].partition("*")[0]):
                best = pattern, name[len(before) : len(name) - len(after)]
        elif pattern.endswith("/") and name.startswith(pattern) and best is None:  # old packages have such entries
            best = pattern, name[len(pattern) :]
    if best is None or ".." in best[1].split("/"):
        return None
    target = _chosen(entries[best[0]], best[1])
    return None if target is None else target + best[1] if best[0].endswith("/") else target


def _chosen(target: Any, star: str) -> str | None:
    """The file of the first condition that is fulfilled."""
    if isinstance(target, str):
        return target.replace("*", star)
    if isinstance(target, list):
        return next((found for one in target if (found := _chosen(one, star)) is not None), None)
    if isinstance(target, dict):
        for condition, one in target.items():
            if condition in CONDITIONS and (found := _chosen(one, star)) is not None:
                return found
    return None
