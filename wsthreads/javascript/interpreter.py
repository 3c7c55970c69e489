"""dukpy's interpreter with the functions and the module loader of wsthreads, and without everything of Node.

While JavaScript runs, dukpy 0.6 calls four things of the interpreter object: `_check_exported_function_exists`,
`_call_python`, `_normalize_module` and `loader`. The versions in this module allow less than dukpy's. A script gets no
``process`` (its ``env`` would be the server's whole environment), no ``require``, and no modules from the working
directory or from dukpy's folder.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Protocol

from wsthreads.errors import IsolateError
from wsthreads.javascript.calls import Function, in_json, parse, refusal
from wsthreads.javascript.engine import JavaScriptError
from wsthreads.javascript.loader import ModuleLoader
from wsthreads.javascript.stacks import Failure
from wsthreads.loggers import get_logger

__all__ = ["Interpreter", "make_interpreter", "runtime_source"]

log = get_logger(__name__)

#: The parts of the runtime, in the order in which they run. ``boot.js`` explains them.
_RUNTIME_PARTS = (
    "boot", "inspect", "console", "timers", "options", "objects", "rooms", "requests", "lazy", "module", "calls",
    "roomcalls", "python", "loop",
)  # fmt: skip

#: The attributes of dukpy's interpreter that `make_interpreter` replaces.
_REPLACED = (
    "_init_process", "_init_console", "_init_require", "_normalize_module", "_call_python",
    "_check_exported_function_exists", "loader",
)  # fmt: skip


class Interpreter(Protocol):
    """The part of dukpy's interpreter that this package uses.

    Only the thread that made the interpreter may use and free it.
    """

    @property
    def capsule(self) -> object:
        """The capsule that has dukpy's C struct."""

    def free(self) -> None:
        """Free the interpreter. No other reference to it may exist.

        QuickJS (0.11) corrupts the heap if it is freed while a module waits in a top-level `await`. If the loader
        cannot exclude this, the interpreter stays in memory until the process ends.
        """

    def evaluate(self, code: str, **values: Any) -> None:
        """Run a script, and then all promise jobs. The global ``dukpy`` has `values`. Raises `JavaScriptError`."""


def runtime_source(name: str) -> str:
    """The source of the runtime: a script that defines a constant with this name."""
    folder = Path(__file__).with_name("runtime")
    parts = [(folder / f"{part}.js").read_text("utf-8") for part in _RUNTIME_PARTS]
    return f'const {name} = (() => {{ "use strict";\n{"".join(parts)}}})();'


def make_interpreter(functions: dict[str, Function], loader: ModuleLoader) -> tuple[Interpreter, str]:
    """Make an interpreter. Also returns the path of the shared library with its engine.

    Raises `IsolateError` if dukpy is not installed, or is a version that this module does not know.
    """
    try:
        import dukpy
        from dukpy import _dukpy
    except ImportError as error:
        raise IsolateError(f"JavaScript handlers need dukpy: pip install dukpy ({error})") from error
    missing = [name for name in _REPLACED if not hasattr(dukpy.JSInterpreter, name)]
    if missing:
        raise IsolateError(f"this dukpy is not supported, it lacks {', '.join(missing)}; 0.6 is known to work")
    named = {name.encode(): function for name, function in functions.items()}

    class Ours(dukpy.JSInterpreter, Interpreter):  # type: ignore[misc]
        _ctx: Any

        def evaluate(self, code: str, **values: Any) -> None:
            try:
                self.evaljs(code, **values)
            except _dukpy.JSRuntimeError as error:
                raise JavaScriptError(Failure.of(str(error))) from None

        @property
        def capsule(self) -> object:
            return self._ctx

        def free(self) -> None:
            if loader.suspended:
                set_destructor = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)
                set_destructor(("PyCapsule_SetDestructor", ctypes.pythonapi))(self._ctx, None)
                log.debug("an interpreter is not freed: an await may be pending in %s", ", ".join(loader.suspended))
            self._ctx = None

        loader = property(lambda self: loader)

        def _normalize_module(self, base: str, name: str) -> str:
            return loader.normalize(base, name)

        def _check_exported_function_exists(self, name: bytes) -> bool:
            return name in named

        def _call_python(self, name: bytes, arguments: bytes) -> bytes | None:
            try:
                return in_json(named[name](*parse(arguments.decode())))
            except BaseException as error:  # even logging can raise an exception
                return refusal(name.decode(), error)

        def _init_nothing(self) -> None:
            """Replaces the methods that make dukpy's process, console and require."""

        _init_process = _init_console = _init_require = _init_nothing

    return Ours(), _dukpy.__file__
