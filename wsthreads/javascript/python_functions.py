"""The Python functions that a script imports: ``import { load } from "./store.py"``.

A Python file is run once for each loading of the script, in the thread that loads it, not in the isolate's. Only the
functions found then can be called: a call names a function by its number, so a script reaches nothing else.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from wsthreads.errors import ScriptError
from wsthreads.sessions.python_files import load_module

__all__ = ["PythonFunction", "PythonFunctions", "functions_of"]


class PythonFunction(NamedTuple):
    """A function that a script may call."""

    name: str
    #: Its module, as the script imports it, for messages: ``store.py``.
    source: str
    function: Callable[..., Any]
    is_generator: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"


class PythonFunctions:
    """All functions that a script has imported, by number. The thread that loads the script adds to them.

    `embedded` are the modules that the application provides, by the names that scripts import. Raises `ScriptError` if
    one has no functions.
    """

    def __init__(self, embedded: Mapping[str, ModuleType] | None = None) -> None:
        self._functions: list[PythonFunction] = []
        self._embedded = {name: functions_of(module, name) for name, module in (embedded or {}).items()}
        self._files: dict[str, list[PythonFunction]] = {}
        self._sources: dict[str, str] = {}  # of ES modules, by the key under which they were loaded

    def __getitem__(self, number: int) -> PythonFunction:
        return self._functions[number]

    def __len__(self) -> int:
        return len(self._functions)

    def provides(self, name: str) -> bool:
        """Whether the application provides a module of this name."""
        return name in self._embedded

    def embedded_source(self, name: str, runtime: str) -> str:
        """The text of the ES module for a module of the application."""
        if name not in self._sources:
            self._sources[name] = self._add(self._embedded[name], runtime)
        return self._sources[name]

    def source(self, key: str, path: str, name: str, runtime: str) -> str:
        """The text of the ES module for a Python file, which is run unless that was done under this `key`.

        Raises `ScriptError`, with file and line, and `OSError`.
        """
        if key not in self._sources:
            functions = functions_of(load_module(Path(path)), name, path)
            self._files[path] = functions
            self._sources[key] = self._add(functions, runtime)
        return self._sources[key]

    def by_file(self) -> dict[str, list[PythonFunction]]:
        """The functions of each Python file, by its path, as they were loaded last."""
        return dict(self._files)

    def _add(self, functions: list[PythonFunction], runtime: str) -> str:
        lines = []
        for function in functions:
            number = len(self._functions)
            self._functions.append(function)
            parts = f"{number}, {json.dumps(function.name)}, {json.dumps(function.is_generator)}"
            lines.append(f"const f{number} = {runtime}.imported({parts}); export {{ f{number} as {function.name} }};\n")
        return "".join(lines)


def functions_of(module: ModuleType, name: str, path: str | None = None) -> list[PythonFunction]:
    """The public functions of a module: those in ``__all__``, or those that it defines, without ``_`` in front.

    Raises `ScriptError` for a coroutine function, for a name in ``__all__`` that is no function, and if there is none.
    """
    listed = getattr(module, "__all__", None)
    names = list(vars(module)) if listed is None else list(listed)
    found: list[PythonFunction] = []
    for each in names:
        value = getattr(module, each, None)
        if listed is None and (each.startswith("_") or not _is_defined_in(module, value)):
            continue
        if isinstance(value, type) or not callable(value):
            what = "does not exist" if value is None else f"is a {type(value).__name__}"
            raise ScriptError(f"{each} in __all__ {what}; a script can only import functions", path or name)
        function = inspect.unwrap(value)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            message = f"{each} is async; scripts call plain functions, each in a thread of its own: write def"
            raise ScriptError(message, path or name, _line_of(function))
        found.append(PythonFunction(each, name, value, inspect.isgeneratorfunction(function)))
    if not found:
        raise ScriptError("it has no public functions that a script could import", path or name)
    return found


def _is_defined_in(module: ModuleType, value: object) -> bool:
    """Whether `value` is a function that the module defines, perhaps in a decorator such as ``lru_cache``."""
    return callable(value) and not isinstance(value, type) and getattr(value, "__module__", "") == module.__name__


def _line_of(function: Any) -> int | None:
    code = getattr(function, "__code__", None)
    return None if code is None else code.co_firstlineno
