"""Runs a Python file of the user as a module. The file is a handler, or a module that a script imports."""

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

    The file can import other files in its folder, as with ``python file.py``. The module of ``chat.py`` gets the name
    ``chat``. So other processes can import it; those of multiprocessing do. If another module has this name, the name
    of the file is used, such as ``json.py``. No import statement can have such a name, so the module hides no other
    module. A file that is loaded twice is run twice.

    A Python process has only one module of each name. So an import, now or later in a function, may get another module
    instead of the file in the same folder. Such an import is an error. Only the imports in this file are checked.

    Raises `ScriptError`, which has file and line, for any exception of the file except KeyboardInterrupt. Raises
    `OSError` if the file cannot be read.
    """
    written, file = file, file.absolute()
    source = file.read_bytes()
    try:
        try:
            # Compiled from a tree, because threads of CPython 3.13t would count their references to constants of code
            # that was compiled from a text.
            tree = ast.parse(source, str(file))
            code = compile(tree, str(file), "exec", dont_inherit=True)
        # a long chain, for example of `elif`, can only be compiled as a text; its imports are not checked
        except RecursionError:
            tree = ast.Module([], [])
            code = compile(source, str(file), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ScriptError(f"SyntaxError: {error.msg}", str(written), error.lineno, error.offset) from error
    except ValueError as error:  # a NUL in the text, before Python 3.12
        raise ScriptError(f"SyntaxError: {error}", str(written)) from error
    except (RecursionError, MemoryError) as error:
        message = f"Python cannot compile such a long or deeply nested statement ({type(error).__name__})"
        raise ScriptError(message, str(written)) from error

    later = _check_imports(tree, file, written)
    module = _module_for(file)
    vars(module)[_LATER] = later
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
        sys.modules.pop(name, None)  # the file may have removed its module
        if earlier is not None:
            sys.modules[name] = earlier
        if isinstance(error, KeyboardInterrupt):  # Ctrl-C; this is usually the main thread
            raise
        place, line = _place_in(folder, error, default=str(file))
        if Path(place).is_relative_to(folder):  # the path as the user wrote it
            place = str(written.parent / Path(place).relative_to(folder))
        raise ScriptError(_summary(error), place, line) from error
    finally:
        with suppress(ValueError, AttributeError):  # the file may have changed these lists
            sys.meta_path.remove(standard)
        with suppress(ValueError, AttributeError):
            sys.path.remove(folder)
    if folder not in sys.path:
        # for imports inside of functions; it is the last one, so that it hides no other modules
        sys.path.append(folder)
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


def _check_imports(tree: ast.Module, file: Path, written: Path) -> dict[str, Path]:
    """Raise `ScriptError` if an import in the file would get another module than the file in the same folder.

    Imports in functions are checked, too.

    Returns the files of the same folder that the file imports only in functions. The keys are the names of the imports.
    Names of the standard library are not checked: even if the handler is a file ``queue.py``, ``import queue`` imports
    the module of the standard library.
    """
    at_once: dict[str, Path] = {}
    later: dict[str, Path] = {}
    for name, line, is_later in sorted(_imports(tree), key=lambda each: each[2]):
        beside = [file.with_name(f"{name}.py"), file.with_name(name) / "__init__.py"]
        found = next((each for each in beside if each != file and each.is_file()), None)
        if found is None or name in sys.stdlib_module_names:
            continue
        imported = sys.modules.get(name)
        if imported is not None:
            spec, how = getattr(imported, "__spec__", None), "gives {}, which was imported before"
        elif is_later and name not in at_once:
            spec, how = _spec_if_last(name, str(file.parent)), "in a function would give {}"
            later[name] = found
        else:
            spec, how = None, ""
            at_once[name] = found
        place = getattr(spec, "origin", None) or ""
        problem = ""
        if os.path.isfile(place) and not any(each.is_file() and each.samefile(place) for each in beside):
            problem = f"{how.format(place)}, and not {found.name} beside this file"
        elif (other := _other_user(name, found)) is not None:
            problem = f"would hide another {found.name} from {other}, which imports it in a function"
        if problem:
            advice = "a process has one module of a name, so rename one of them"
            raise ScriptError(f"import {name} {problem}: {advice}", str(written), line)
    return later


def _imports(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """The imported modules. For each, its name, the line, and whether the import is in a function.

    Imports that are only for type checkers are left out.
    """
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, is_later = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno, is_later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno, is_later
        children = ast.iter_child_nodes(node)
        if isinstance(node, ast.If):
            if _is_false(node.test):
                children = iter(node.orelse)
            elif isinstance(node.test, ast.UnaryOp) and _is_false(node.test.operand):
                children = iter(node.body)
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        waiting += [(each, is_later or is_function) for each in children]


def _is_false(test: ast.expr) -> bool:
    """Whether a test is false in each run, because it is ``TYPE_CHECKING``, or this joined with more by `and`."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(_is_false, test.values))
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _other_user(name: str, found: Path) -> str | None:
    """A file that was loaded before, and that imports another module of this name in a function.

    None if there is none.
    """
    for module in list(sys.modules.values()):
        later = vars(module).get(_LATER) if isinstance(module, ModuleType) else None
        wanted = later.get(name) if later is not None else None
        if wanted is not None and wanted.is_file() and not wanted.samefile(found):
            return str(module.__file__)
    return None


def _module_for(file: Path) -> ModuleType:
    """Make a module for a file, which is not run yet. `load_module` explains the module's name."""
    name = file.stem
    if _is_ours(sys.modules.get(name), file) or (name not in sys.modules and _is_imported_as(name, file)):
        spec = spec_from_file_location(name, file)
        if spec is not None:
            spec.loader_state = _OURS
            return module_from_spec(spec)
    module = ModuleType(_free_module_name(file.name))
    module.__file__ = str(file)
    module.__package__ = ""  # so that a relative import raises a clear error
    return module


#: The `loader_state` of modules that `load_module` has made. A newer module may replace such a module.
_OURS = __name__

#: The attribute in which such modules have the result of `_check_imports`.
_LATER = "__wsthreads_later__"


def _is_ours(module: ModuleType | None, file: Path) -> bool:
    spec = getattr(module, "__spec__", None)
    return spec is not None and spec.loader_state == _OURS and spec.origin == str(file)


def _is_imported_as(name: str, file: Path) -> bool:
    """Whether `import name` finds the file if the file's folder is the last one on the path."""
    spec = None if "." in name else _spec_if_last(name, str(file.parent))
    return spec is not None and spec.origin == str(file)


def _spec_if_last(name: str, folder: str) -> ModuleSpec | None:
    """What `import name` finds if the folder is the last one on the path."""
    is_new = folder not in sys.path
    if is_new:
        sys.path.append(folder)
    invalidate_caches()  # the file may be new
    try:
        return find_spec(name)
    except (ImportError, ValueError):  # the user's finders may raise these
        return None
    finally:
        if is_new:
            sys.path.remove(folder)


def _free_module_name(name: str) -> str:
    free, number = name, 2
    while free in sys.modules:
        free, number = f"{name}#{number}", number + 1
    return free


def _summary(error: BaseException) -> str:
    if isinstance(error, SyntaxError):  # the error is in an imported module; str() would repeat the place
        return f"{type(error).__name__}: {error.msg}"
    return bounded(summary_of(error))


def _place_in(folder: str, error: BaseException, default: str) -> tuple[str, int | None]:
    """The file and the line of the innermost code under `folder` in the traceback.

    There the author would look first.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next(
        ((frame.filename, frame.lineno) for frame in reversed(frames) if frame.filename.startswith(folder + os.sep)),
        (default, None),
    )
