"""Runs a Python file of the user's as a module: a handler, or a module that a script imports."""

from __future__ import annotations

import ast
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from wsthreads.errors import ScriptError
from wsthreads.monitoring.failures import bounded, summary_of

__all__ = ["load_module"]


def load_module(file: Path) -> ModuleType:
    """Run a Python file as a module, and return the module.

    The file can import the files beside it, as with ``python file.py``. The module of ``chat.py`` is named ``chat``, so
    that other processes, such as those of multiprocessing, can import it. If another module has that name, the name is
    that of the file, such as ``json.py``. No import statement can spell it, so it hides no other module. A file that is
    loaded twice is run twice.

    A Python process has only one module of a name. So an import may get a module from elsewhere instead of the file
    beside this file. That is an error. Only the imports in this file are checked.

    Raises `ScriptError`, with file and line, for any exception of the file except KeyboardInterrupt, and `OSError` if
    the file cannot be read.
    """
    written, file = file, file.absolute()
    source = file.read_bytes()
    try:
        tree = ast.parse(source, str(file))
        code = compile(tree, str(file), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ScriptError(f"SyntaxError: {error.msg}", str(written), error.lineno, error.offset) from error
    except ValueError as error:  # a NUL, before Python 3.12
        raise ScriptError(f"SyntaxError: {error}", str(written)) from error

    _check_imports(tree, file, written)
    module = _module_for(file)
    name = module.__name__
    earlier = sys.modules.get(name)
    sys.modules[name] = module
    folder = str(file.parent)
    standard = _StandardLibrary(folder)
    sys.path.insert(0, folder)
    sys.meta_path.insert(0, standard)
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        sys.modules.pop(name, None)  # the file may have removed it
        if earlier is not None:
            sys.modules[name] = earlier
        if isinstance(error, KeyboardInterrupt):  # Ctrl-C: this is usually the main thread
            raise
        place, line = _place_in(folder, error, default=str(file))
        if Path(place).is_relative_to(folder):  # as the user named it
            place = str(written.parent / Path(place).relative_to(folder))
        raise ScriptError(_summary(error), place, line) from error
    finally:
        with suppress(ValueError, AttributeError):  # the file may have changed them
            sys.meta_path.remove(standard)
        with suppress(ValueError, AttributeError):
            sys.path.remove(folder)
    if folder not in sys.path:
        sys.path.append(folder)  # for imports inside functions; last, so that it hides no other modules
    return module


class _StandardLibrary:
    """Finds modules of the standard library, even if a file in the folder has the same name."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or name not in sys.stdlib_module_names:
            return None
        return PathFinder.find_spec(name, [each for each in sys.path if os.path.abspath(each) != self._folder])


def _check_imports(tree: ast.Module, file: Path, written: Path) -> None:
    """Raise `ScriptError` if an import in the file, also in a function, would get a module from elsewhere.

    Names of the standard library are not checked, because their modules are meant: ``queue.py`` may be a handler.
    """
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names:
            place = getattr(getattr(sys.modules.get(name), "__spec__", None), "origin", None) or ""
            beside = [file.with_name(f"{name}.py"), file.with_name(name) / "__init__.py"]
            found = [each for each in beside if each != file and each.is_file()]
            if found and os.path.isfile(place) and not any(each.samefile(place) for each in found):
                raise ScriptError(
                    f"import {name} gives {place}, which was imported before, and not {found[0].name} beside this "
                    "file: a process has one module of a name, so rename one of them",
                    str(written),
                    node.lineno,
                )


def _walk(tree: ast.Module) -> Iterator[ast.AST]:
    """As `ast.walk`, but without what is only for type checkers."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _module_for(file: Path) -> ModuleType:
    """A module for a file, which is not run yet. `load_module` explains its name."""
    name = file.stem
    if _is_ours(sys.modules.get(name), file) or (name not in sys.modules and _is_imported_as(name, file)):
        spec = spec_from_file_location(name, file)
        if spec is not None:
            spec.loader_state = _OURS
            return module_from_spec(spec)
    module = ModuleType(_free_module_name(file.name))
    module.__file__ = str(file)
    module.__package__ = ""  # then a relative import raises a clear error
    return module


#: The `loader_state` of modules that are such files. A newer module may replace them.
_OURS = __name__


def _is_ours(module: ModuleType | None, file: Path) -> bool:
    spec = getattr(module, "__spec__", None)
    return spec is not None and spec.loader_state == _OURS and spec.origin == str(file)


def _is_imported_as(name: str, file: Path) -> bool:
    """Whether `import name` finds the file if its folder is the last one on the path."""
    folder = str(file.parent)
    is_new = folder not in sys.path
    if is_new:
        sys.path.append(folder)
    invalidate_caches()  # the file may be new
    try:
        spec = None if "." in name else find_spec(name)
    except (ImportError, ValueError):  # the user's finders may raise these
        return False
    finally:
        if is_new:
            sys.path.remove(folder)
    return spec is not None and spec.origin == str(file)


def _free_module_name(name: str) -> str:
    free, number = name, 2
    while free in sys.modules:
        free, number = f"{name}#{number}", number + 1
    return free


def _summary(error: BaseException) -> str:
    if isinstance(error, SyntaxError):  # in an imported module; str() would repeat the place
        return f"{type(error).__name__}: {error.msg}"
    return bounded(summary_of(error))


def _place_in(folder: str, error: BaseException, default: str) -> tuple[str, int | None]:
    """File and line of the innermost code under `folder` in the traceback: where its author would look."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next(
        ((frame.filename, frame.lineno) for frame in reversed(frames) if frame.filename.startswith(folder + os.sep)),
        (default, None),
    )
