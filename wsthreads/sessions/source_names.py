"""Finds names in the source text of a handler without running it. Suggests names in place of misspelt ones."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable

__all__ = ["did_you_mean", "names_in"]

_EXPORT = re.compile(
    r"""\bexport\s+(?:
        (?:declare\s+|abstract\s+)*(?:async\s+)?(?:function\s*\*?|class|const|let|var)\s*(?P<declared>[\w$]+)
        | \{(?P<list>[^{}]*)\}
    )""",
    re.VERBOSE,
)
_LISTED = re.compile(r"(?:\w+\s+as\s+)?(?P<name>[\w$]+)\s*(?:,|$)")
_COMMENT = re.compile(r"/\*.*?\*/|(?<![:'\"`\\/])//[^\n]*", re.DOTALL)

#: Maps names of functions in other libraries to those in wsthreads.
_ALIASES = {
    "onconnect": "onopen",
    "onconnection": "onopen",
    "ondata": "onmessage",
    "ondisconnect": "onclose",
    "oncreate": "onroomstart",
    "ondispose": "onroomend",
    "onreceive": "onmessage",
    "onroomclose": "onroomend",
    "onroomcreate": "onroomstart",
    "onroomopen": "onroomstart",
    "onroomstop": "onroomend",
    "onupgrade": "onhandshake",
}


def names_in(source: str, *, in_script: bool) -> dict[str, tuple[int, int]]:
    """The names that a script exports, or that a Python module defines. Each has its line and column, counted from 1.

    A script is not parsed, so unusual exports are missing. Returns nothing for a Python file with a syntax error.
    """
    return _exports(source) if in_script else _bindings(source)


def did_you_mean(name: str, among: Iterable[str]) -> str | None:
    """The name in `among` that is most similar to `name`. None if none is similar. Ignores case and underscores.

    `name` must begin with the same two letters as a name in `among`, which are "on" for handler functions.
    """
    plain = {_plain(other): other for other in among}
    wanted = _ALIASES.get(_plain(name), _plain(name))
    if wanted[:2] not in {other[:2] for other in plain}:
        return None
    close = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.75)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _exports(source: str) -> dict[str, tuple[int, int]]:
    source = _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source)
    found: dict[str, tuple[int, int]] = {}
    for export in _EXPORT.finditer(source):
        if export["declared"]:
            found.setdefault(export["declared"], _place(source, export.start("declared")))
            continue
        for listed in _LISTED.finditer(export["list"]):
            found.setdefault(listed["name"], _place(source, export.start("list") + listed.start("name")))
    return found


def _place(source: str, offset: int) -> tuple[int, int]:
    before = source[:offset]
    return before.count("\n") + 1, offset - before.rfind("\n")


def _bindings(source: str) -> dict[str, tuple[int, int]]:
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return {}
    found: dict[str, tuple[int, int]] = {}
    for node in body:
        column = node.col_offset + 1
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            keyword = "async def " if isinstance(node, ast.AsyncFunctionDef) else "def "
            names = [(node.name, column + len(keyword))]
        elif isinstance(node, ast.ClassDef):
            names = [(node.name, column + len("class "))]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [(alias.asname or alias.name, alias.col_offset + 1) for alias in node.names]
        else:
            stored = (child for child in ast.walk(node) if isinstance(child, ast.Name))
            names = [(child.id, child.col_offset + 1) for child in stored if isinstance(child.ctx, ast.Store)]
        for name, at in names:
            found[name] = (node.lineno, at)
    return found
