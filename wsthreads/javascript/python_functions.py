"""The Python functions that a script imports: ``import { load } from "./store.py"``.

A Python file is run once for each load of the script. The file runs in the thread that loads the script, not in the
isolate's thread. A script can call only the functions that were found then. A call names a function by a number, so a
script can reach nothing else.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from wsthreads.errors import ConfigError, ScriptError
from wsthreads.monitoring.failures import bounded, summary_of
from wsthreads.sessions.python_files import load_module

__all__ = ["PythonFunction", "PythonFunctions", "functions_of"]


class PythonFunction(NamedTuple):
    """A function that a script may call."""

    name: str
    #: The name by which the script imports the module of the function, for messages. For example ``store.py``.
    source: str
    function: Callable[..., Any]
    is_generator: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"


class PythonFunctions:
    """All functions that a script has imported, by number. Only the thread that loads the script adds functions.

    `embedded` has the modules that the application provides, by the names that scripts import.

    Raises `ScriptError` if a module has no functions, and `ConfigError` if `embedded` is not a dict of modules.
    """

    def __init__(self, embedded: Mapping[str, ModuleType] | None = None) -> None:
        self._functions: list[PythonFunction] = []
        _check_modules({} if embedded is None else embedded)
        self._embedded = {name: functions_of(module, name) for name, module in (embedded or {}).items()}
        self._files: dict[str, list[PythonFunction]] = {}
        self._sources: dict[str, str] = {}  # the texts of the ES modules, by the key under which they were loaded

    def __getitem__(self, number: int) -> PythonFunction:
        return self._functions[number]

    def __len__(self) -> int:
        return len(self._functions)

    @property
    def provided(self) -> Collection[str]:
        """The names of the modules that the application provides."""
        return self._embedded.keys()

    def embedded_source(self, name: str, runtime: str) -> str:
        """The text of the ES module that stands for a module of the application."""
        if name not in self._sources:
            self._sources[name] = self._add(self._embedded[name], runtime)
        return self._sources[name]

    def has(self, key: str) -> bool:
        """Whether a Python file was run under this key."""
        return key in self._sources

    def source(self, key: str, path: str, name: str, runtime: str) -> str:
        """The text of the ES module that stands for a Python file.

        Runs the file, unless it was run under this `key` before.

        Raises `ScriptError`, which has file and line, and `OSError`.
        """
        if key not in self._sources:
            functions = functions_of(load_module(Path(path)), name, path)
            self._files[path] = functions
            self._sources[key] = self._add(functions, runtime)
        return self._sources[key]

    def by_file(self) -> dict[str, list[PythonFunction]]:
        """The functions that each Python file had when it was last loaded, by the file's path."""
        return dict(self._files)

    def _add(self, functions: list[PythonFunction], runtime: str) -> str:
        lines = []
        for function in functions:
            number = len(self._functions)
            self._functions.append(function)
            parts = f"{number}, {json.dumps(function.name)}, {json.dumps(function.is_generator)}"
            lines.append(f"const f{number} = {runtime}.imported({parts}); export {{ f{number} as {function.name} }};\n")
        return "".join(lines)


def _check_modules(modules: object) -> None:
    if not isinstance(modules, Mapping):
        raise ConfigError(f'modules must be a dict such as {{"store": store}}, not a {type(modules).__name__}')
    for name, module in modules.items():
        if not isinstance(name, str):
            raise ConfigError(f"modules has a name that is not text: {name!r:.80}")
        if not isinstance(module, ModuleType):
            kind = type(module).__name__
            raise ConfigError(f"modules[{name!r:.80}] must be an imported Python module, not a {kind}")


def functions_of(module: ModuleType, name: str, path: str | None = None) -> list[PythonFunction]:
    """The public functions of a module: those in ``__all__``, or those that it defines without a leading ``_``.

    Raises `ScriptError` in four cases: a function is a coroutine function, a name in ``__all__`` is not a function,
    there is no function, or an object of the module raises an exception.
    """
    try:
        return _functions_of(module, name, path or name)
    except ScriptError:
        raise
    except Exception as error:  # raised by the module's `__getattr__` or by its objects
        raise ScriptError(f"its functions cannot be found: {bounded(summary_of(error))}", path or name) from error


def _functions_of(module: ModuleType, name: str, path: str) -> list[PythonFunction]:
    names_of_all = vars(module)
    listed = names_of_all.get("__all__")
    if listed is not None and not (isinstance(listed, (list, tuple)) and all(isinstance(each, str) for each in listed)):
        raise ScriptError("__all__ must be a list of names, such as ['load', 'save']", path)
    found: list[PythonFunction] = []
    for each in names_of_all.keys() if listed is None else dict.fromkeys(listed):
        value = names_of_all.get(each) if listed is None else getattr(module, each, None)
        if listed is None and (each.startswith("_") or not _is_defined_in(module, value)):
            continue
        if isinstance(value, type) or not callable(value):
            what = "does not exist" if value is None else f"is a {type(value).__name__}"
            raise ScriptError(f"{each} in __all__ {what}; a script can only import functions", path)
        if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
            message = f"{each} is async; scripts call plain functions, each in a thread of its own: write def"
            raise ScriptError(message, path, _line_of(value))
        found.append(PythonFunction(each, name, value, inspect.isgeneratorfunction(value)))
    if not found:
        raise ScriptError("it has no public functions that a script could import", path)
    return found


def _is_defined_in(module: ModuleType, value: object) -> bool:
    """Whether `value` is a function that the module defines.

    A decorator such as ``lru_cache`` may have wrapped it.
    """
    if not isinstance(value, FunctionType) and not (
        "__wrapped__" in getattr(value, "__dict__", ()) and callable(value)
    ):
        return False
    return bool(getattr(value, "__module__", "") == module.__name__)


def _line_of(function: Any) -> int | None:
    code = getattr(function, "__code__", None)
    return None if code is None else code.co_firstlineno
