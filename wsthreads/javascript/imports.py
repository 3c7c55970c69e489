"""Explains imports that fail, and suggests corrections. Also converts JSON files to modules."""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "BUILT_IN",
    "BUILT_IN_ID",
    "Complaint",
    "explain_missing",
    "json_module",
    "meant_files",
    "place_of_import",
    "without_attributes",
]

#: The name of the module that wsthreads provides, as scripts import it, and the module's id. No file has this id.
BUILT_IN = "wsthreads"
BUILT_IN_ID = "wsthreads:module"

# The patterns are compiled when they are used, because most scripts need none of them.

#: Matches an import or a re-export of names. Each name is written ``name``, ``type name`` or ``name as another``.
_CLAUSE = (
    r"""\b(?P<kind>import|export)\s+(?:[\w$]+\s*,\s*)?\{(?P<names>[^{}]*)\}\s*from\s*["'](?P<from>[^"'\n]+)["']"""
)
#: Matches the import of a default export. Other names may be imported with it.
_DEFAULT = (
    r"""\bimport\s+(?P<local>[\w$]+)\s*(?:,\s*(?:\{[^{}]*\}|\*\s*as\s+[\w$]+)\s*)?from\s*["'](?P<from>[^"'\n]+)["']"""
)
_NO_EXPORT = r"SyntaxError: Could not find export '([^']*)' in module '([^']*)'"
_EXPORTED = r"\bexport\s+(?:default\s+)?(?:async\s+)?(?:const|let|var|class|function\s*\*?)\s+([\w$]+)"
_LISTED = r"\bexport\s*\{([^{}]*)\}"

#: Matches import attributes, which the engine does not know, and the import before them.
_ATTRIBUTES = (
    r"""(?P<import>\b(?:from|import)\s*(["'])[^"'\n]+\.json\2\s*)"""
    r"""(?P<attributes>(?:with|assert)\s*\{\s*["']?type["']?\s*:\s*(["'])json\4\s*,?\s*\})"""
)

#: Matches the attributes of a dynamic import, which are its second argument, and the import before them.
_OPTIONS = (
    r"""(?P<import>\bimport\s*\(\s*(["'])[^"'\n]+\.json\2\s*)"""
    r"""(?P<attributes>,\s*\{\s*(?:with|assert)\s*:\s*\{\s*["']?type["']?\s*:\s*(["'])json\4\s*,?\s*\}\s*,?\s*\}\s*,?)"""
)

#: Matches a text in JSON, or a constant that JavaScript has and JSON does not have.
_TEXT_OR_CONSTANT = r""""(?:[^"\\]|\\.)*"|(-?Infinity|NaN)"""

#: Endings that people leave out of an import, or that the file has instead of the ending that a compiler has written.
_ENDINGS = (".ts", ".js", ".mjs", ".py", ".json", "/index.ts", "/index.js")


class Complaint(NamedTuple):
    """An error text and its place. The place is the id of a module, and a line and a column, both counted from 1."""

    message: str
    module: str
    line: int
    column: int


def meant_files(name: str, exists: Callable[[str], bool]) -> str | None:
    """The file that the import of a missing file may mean, such as ``./lib.ts`` for ``./lib`` or ``./lib.js``."""
    stem, suffix = posixpath.splitext(name)
    names = [name + ending for ending in _ENDINGS]
    if suffix in (".js", ".mjs", ".ts", ".jsx", ".tsx"):
        names += [stem + ending for ending in _ENDINGS[:3]]
    return next((other for other in names if other != name and exists(other)), None)


def place_of_import(name: str, source: str) -> tuple[int, int] | None:
    """The line and the column of the first import of `name` in a source. None if there is none."""
    _, position = next(_places_of(name, {"": source}), ("", -1))
    return None if position < 0 else _place(source, position)


def _places_of(name: str, sources: dict[str, str]) -> Iterator[tuple[str, int]]:
    """The sources that import `name`.

    Each result is the id of a source, and the position of the name in its first import.
    """
    for identity, source in sources.items():
        found = re.search(rf"""\b(?:from|import)\s*\(?\s*(["']){re.escape(name)}\1""", source)
        if found is not None:
            yield identity, found.start(1)


def explain_missing(
    message: str, sources: dict[str, str], packages: Mapping[tuple[str, str], str] = MappingProxyType({})
) -> Complaint | None:
    """Explain the import of a name that the module does not export. None if the import cannot be found.

    `message` is the engine's text. It names the first module in a chain of re-exports. `sources` has the sources of all
    modules, by id. `packages` has the ids of packages' files; its keys are the importer's id and the imported name.
    """
    found = re.match(_NO_EXPORT, message)
    if found is None:
        return None
    name, module = found[1], found[2].partition("?")[0]
    if module not in sources:  # the engine cuts long names
        module = next((identity for identity in sources if identity.startswith(module)), module)
    importer = next(_importers(name, module, sources, packages), None)
    by_default = None
    if name == "default" and importer is None:
        by_default = next(_default_imports(module, sources, packages), None)
        importer = None if by_default is None else (by_default[0], by_default[1].start())
    seen = {module}
    while (passed := _reexport(name, module, sources, packages)) is not None and passed[1] not in seen:
        importer = (module, passed[2])
        name, module = passed[0], passed[1]
        seen.add(module)
    if importer is None and module == BUILT_IN_ID:  # for example import name from "wsthreads"
        importer = next(_places_of(BUILT_IN, sources), None)
    if importer is None or module not in sources:
        return None
    at, position = importer
    exported = _exports_of(sources[module])
    told = f"there is no export {name!r} in {BUILT_IN if module == BUILT_IN_ID else module}"
    if module == BUILT_IN_ID:
        told += f", which has {', '.join(exported)}"
    if by_default is not None and name == "default" and exported:
        local, specifier = by_default[1]["local"], by_default[1]["from"]
        told += f": write import {{ {', '.join(exported[:3])} }} from {specifier!r}"
        told += f", or import * as {local} from {specifier!r}"
    elif re.search(rf"\b(?:interface|type)\s+{re.escape(name)}\b", sources[module]):
        kind = sources[at][position:].partition("{")[0].split()[0]
        told += f": it is a type there, so write {kind} type {{ {name} }}"
    else:
        meant = difflib.get_close_matches(name, exported, n=1)
        told += f"; did you mean {meant[0]}?" if meant else ""
    return Complaint(told, at, *_place(sources[at], position))


def json_module(source: str) -> str:
    """Convert a JSON file to a module. Raises `json.JSONDecodeError`, with the place, for invalid JSON."""

    def refuse(name: str) -> None:  # refuses a constant that Python's parser accepts
        position = next(found.start() for found in re.finditer(_TEXT_OR_CONSTANT, source) if found[1] == name)
        raise json.JSONDecodeError(f"{name} is not JSON", source, position)

    try:
        json.loads(source, parse_constant=refuse)
    except RecursionError:
        raise json.JSONDecodeError("it has too many levels", source, 0) from None
    return f"export default JSON.parse({json.dumps(source)});"


def without_attributes(source: str) -> str:
    """Remove ``with { type: "json" }`` from the imports of a module. Lines and columns stay the same."""

    def blank(found: re.Match[str]) -> str:
        return found["import"] + re.sub(r"[^\n]", " ", found["attributes"])

    if ".json" not in source:
        return source
    return re.sub(_OPTIONS, blank, re.sub(_ATTRIBUTES, blank, source))


def _place(source: str, position: int) -> tuple[int, int]:
    before = source[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _names(listed: str) -> Iterator[tuple[str, str]]:
    """The names in an import clause.

    For each, the name in the exporting module, and the name in the importing module.
    """
    for element in listed.split(","):
        words = element.split()
        # a compiler has dropped `type X`, together with the types
        if words and (words[0] != "type" or len(words) in (1, 3)):
            yield words[0], words[-1]


def _importers(
    name: str, module: str, sources: dict[str, str], packages: Mapping[tuple[str, str], str]
) -> Iterator[tuple[str, int]]:
    """The imports of a name from a module.

    For each, the id of the importer, and the position in the importer's source.
    """
    for identity, source in sources.items():
        for clause in re.finditer(_CLAUSE, source):
            if _resolved(identity, clause["from"], packages) == module and name in dict(_names(clause["names"])):
                yield identity, clause.start()


def _default_imports(
    module: str, sources: dict[str, str], packages: Mapping[tuple[str, str], str]
) -> Iterator[tuple[str, re.Match[str]]]:
    """The imports of a module's default export. For each, the id of the importer, and the match of the import."""
    for identity, source in sources.items():
        for found in re.finditer(_DEFAULT, source):
            if _resolved(identity, found["from"], packages) == module:
                yield identity, found


def _reexport(
    name: str, module: str, sources: dict[str, str], packages: Mapping[tuple[str, str], str]
) -> tuple[str, str, int] | None:
    """Find the re-export of a name: the name in the other module, that module, and the position.

    None if the name is not re-exported.
    """
    for clause in re.finditer(_CLAUSE, sources.get(module, "")):
        for theirs, ours in _names(clause["names"]):
            if clause["kind"] == "export" and ours == name:
                return theirs, _resolved(module, clause["from"], packages), clause.start()
    return None


def _resolved(identity: str, name: str, packages: Mapping[tuple[str, str], str]) -> str:
    if name == BUILT_IN:
        return BUILT_IN_ID
    if (identity, name) in packages:
        return packages[identity, name]
    return posixpath.normpath(posixpath.join(posixpath.dirname(identity), name))


def _exports_of(source: str) -> list[str]:
    listed = [ours for clause in re.finditer(_LISTED, source) for _, ours in _names(clause[1])]
    return [*re.findall(_EXPORTED, source), *listed]
