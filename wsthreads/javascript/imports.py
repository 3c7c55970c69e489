"""What a script imports that it cannot have, and what was perhaps meant; imports of JSON."""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Complaint", "explain_missing", "json_module", "meant_files", "place_of_import", "without_attributes"]

#: An import, or a re-export, of names. An element is ``name``, ``type name`` or ``name as another``.
_CLAUSE = re.compile(
    r"""\b(?P<kind>import|export)\s+(?:[\w$]+\s*,\s*)?\{(?P<names>[^{}]*)\}\s*from\s*["'](?P<from>[^"'\n]+)["']"""
)
_NO_EXPORT = re.compile(r"SyntaxError: Could not find export '([^']*)' in module '([^']*)'")
_EXPORTED = re.compile(r"\bexport\s+(?:default\s+)?(?:async\s+)?(?:const|let|var|class|function\s*\*?)\s+([\w$]+)")
_LISTED = re.compile(r"\bexport\s*\{([^{}]*)\}")

#: What the engine does not know, and does not need.
_ATTRIBUTES = re.compile(
    r"""(?P<import>\b(?:from|import)\s*(["'])[^"'\n]+\.json\2\s*)"""
    r"""(?P<attributes>(?:with|assert)\s*\{\s*["']?type["']?\s*:\s*(["'])json\4\s*,?\s*\})"""
)

#: What may be left out, or be another suffix in the output of a compiler.
_ENDINGS = (".ts", ".js", ".mjs", ".json", "/index.ts", "/index.js")


class Complaint(NamedTuple):
    """What is wrong, and where: the id of a module, its line and column, which count from 1."""

    message: str
    module: str
    line: int
    column: int


def meant_files(name: str, exists: Callable[[str], bool]) -> str | None:
    """What was perhaps meant by an import of `name`, which is no file: ``./lib.ts`` by ``./lib`` or ``./lib.js``."""
    stem, suffix = posixpath.splitext(name)
    names = [name + ending for ending in _ENDINGS]
    if suffix in (".js", ".mjs", ".ts", ".jsx", ".tsx"):
        names += [stem + ending for ending in _ENDINGS[:3]]
    return next((other for other in names if other != name and exists(other)), None)


def place_of_import(name: str, source: str) -> tuple[int, int] | None:
    """The line and column of the first import of `name` in a text."""
    found = re.search(rf"""\b(?:from|import)\s*\(?\s*(["']){re.escape(name)}\1""", source)
    return None if found is None else _place(source, found.start(1))


def explain_missing(message: str, sources: dict[str, str]) -> Complaint | None:
    """Where a name is imported that a module does not export, and why it does not; None if that cannot be found.

    `message` is the engine's, which names the first module in a chain of re-exports. `sources` are those of all
    modules, by their ids.
    """
    found = _NO_EXPORT.match(message)
    if found is None:
        return None
    name, module = found[1], found[2].partition("?")[0]
    importer = next(_importers(name, module, sources), None)
    seen = {module}
    while (passed := _reexport(name, module, sources)) is not None and passed[1] not in seen:
        importer = (module, passed[2])
        name, module = passed[0], passed[1]
        seen.add(module)
    if importer is None or module not in sources:
        return None
    at, position = importer
    told = f"there is no export {name!r} in {module}"
    if re.search(rf"\b(?:interface|type)\s+{re.escape(name)}\b", sources[module]):
        kind = sources[at][position:].partition("{")[0].split()[0]
        told += f": it is a type there, so write {kind} type {{ {name} }}"
    else:
        meant = difflib.get_close_matches(name, _exports_of(sources[module]), n=1)
        told += f"; did you mean {meant[0]}?" if meant else ""
    return Complaint(told, at, *_place(sources[at], position))


def json_module(source: str) -> str:
    """The module that a JSON file is. Raises `ValueError` with the place for what is none."""
    try:
        json.loads(source)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    return f"export default JSON.parse({json.dumps(source)});"


def without_attributes(source: str) -> str:
    """A module without the ``with { type: "json" }`` of its imports; all else stays in its place."""

    def blank(found: re.Match[str]) -> str:
        return found["import"] + re.sub(r"[^\n]", " ", found["attributes"])

    return _ATTRIBUTES.sub(blank, source)


def _place(source: str, position: int) -> tuple[int, int]:
    before = source[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _names(listed: str) -> Iterator[tuple[str, str]]:
    """What the elements of a clause name, in the module that they are from and in the one that they are in."""
    for element in listed.split(","):
        words = element.split()
        if words and (words[0] != "type" or len(words) in (1, 3)):  # `type X` is dropped with the types
            yield words[0], words[-1]


def _importers(name: str, module: str, sources: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Where a name is asked of a module: the id of the importer, and the position in its source."""
    for identity, source in sources.items():
        for clause in _CLAUSE.finditer(source):
            if _resolved(identity, clause["from"]) == module and name in dict(_names(clause["names"])):
                yield identity, clause.start()


def _reexport(name: str, module: str, sources: dict[str, str]) -> tuple[str, str, int] | None:
    """Where a module has an export from, if it is another module's: the name there, the module, the position."""
    for clause in _CLAUSE.finditer(sources.get(module, "")):
        for theirs, ours in _names(clause["names"]):
            if clause["kind"] == "export" and ours == name:
                return theirs, _resolved(module, clause["from"]), clause.start()
    return None


def _resolved(identity: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(identity), name))


def _exports_of(source: str) -> list[str]:
    listed = [ours for clause in _LISTED.finditer(source) for _, ours in _names(clause[1])]
    return [*_EXPORTED.findall(source), *listed]
