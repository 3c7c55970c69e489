"""Finds and loads the targets of the command line: handler files and directories of them, each served at a path.

A target is a ``.js``, ``.mjs``, ``.ts`` or ``.py`` file, or a directory that has some. ``chat.js`` is served at
``/ws/chat``. In a directory, these files are no handlers: names that begin with ``_`` or ``.``, which others import;
the files of pytest (``test_*.py``, ``conftest.py``) and of gunicorn (``gunicorn.conf.py``); and types (``*.d.ts``).
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import invalidate_caches
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wsthreads.errors import HandlerError, ScriptError, UsageError
from wsthreads.monitoring.failures import bounded, summary_of
from wsthreads.monitoring.gunicorn_logs import log_to_gunicorn
from wsthreads.sessions.hooks import HOOKS
from wsthreads.sessions.source_names import names_in

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from wsthreads.app import WebSocketApp
    from wsthreads.config import Config
    from wsthreads.sessions.endpoint import Endpoint

__all__ = [
    "SUFFIXES",
    "Target",
    "add_target",
    "check_module",
    "create_app",
    "find_targets",
    "is_handler_file",
    "load_module",
    "placed",
    "source_of",
]

SCRIPT_SUFFIXES = (".js", ".mjs", ".ts")
SUFFIXES = (*SCRIPT_SUFFIXES, ".py")

#: Names that need no escape in a URL (RFC 3986, 2.3: unreserved).
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """A handler file, and the path at which it is served."""

    path: str
    file: Path

    @property
    def is_script(self) -> bool:
        return self.file.suffix in SCRIPT_SUFFIXES


def find_targets(targets: Iterable[str | os.PathLike[str]], path: str | None = None) -> tuple[Target, ...]:
    """The handler files of all `targets`, each with its path, which is ``/ws/<name>`` unless `path` is given.

    Reads directories, but opens no file. Raises `UsageError` for a target that does not exist or is no handler file, a
    directory without handlers, a name that needs an escape in a URL, two files with the same path, and a `path` that is
    not valid or is for several files. A `path` may have parameters, as in ``/ws/rooms/<name>``.
    """
    files = [file for target in targets for file in _files_of(_path_of(target))]
    if path is not None:
        if len(files) != 1:
            raise UsageError(f"a path can be given for a single file only, not for {len(files)}")
        return (Target(_checked_path(path), files[0]),)
    found: dict[str, Target] = {}
    for file in files:
        if not _UNRESERVED.fullmatch(file.stem):
            raise UsageError(f"{file}: {file.stem!r} cannot be part of a URL; rename the file, or use --path")
        target = Target(f"/ws/{file.stem}", file)
        other = found.setdefault(target.path, target)
        if other is not target:
            raise UsageError(f"{other.file} and {file} would both be {target.path}; rename one")
    return tuple(found.values())


def _path_of(target: object) -> Path:
    if isinstance(target, (str, os.PathLike)):
        return Path(target)
    raise UsageError(f"a target is the name of a file or a directory, not a {type(target).__name__}: {target!r:.100}")


def _files_of(target: Path) -> list[Path]:
    kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    if os.path.isdir(target):  # no error if the name is too long
        files = sorted(file for file in target.iterdir() if file.suffix in SUFFIXES and is_handler_file(file))
        if not files:
            raise UsageError(f"{target}: no {kinds} file in this directory")
        return files
    if not os.path.exists(target):
        raise UsageError(f"{target}: no such file or directory")
    if target.name.endswith(".d.ts"):
        raise UsageError(f"{target}: a .d.ts file has types, and no handler")
    if target.suffix not in SUFFIXES:
        raise UsageError(f"{target}: a handler is a {kinds} file, or a directory of them")
    if not os.path.isfile(target):  # reading a pipe or a device could take forever
        raise UsageError(f"{target}: not a regular file")
    return [target]


def is_handler_file(file: Path) -> bool:
    """Whether a file of a directory is a handler, as far as its name tells."""
    name = file.name
    is_tool = name in ("conftest.py", "gunicorn.conf.py") or (name.startswith("test_") and file.suffix == ".py")
    return not (name[0] in "._" or name.endswith(".d.ts") or is_tool) and file.is_file()


def _checked_path(path: str) -> str:
    from wsthreads.app.rules import Rule, is_rule, without_parameters

    plain = without_parameters(path)
    if not path.startswith("/") or any(c in "?#" or c.isspace() or not c.isprintable() for c in plain):
        raise UsageError(f"a path begins with / and has no spaces, ? or #, as in /live; not {path!r}")
    if is_rule(path):
        Rule(path)
    return path


def add_target(app: WebSocketApp, target: Target) -> Endpoint:
    """Load a handler file and add it to `app`. `load_module` says how Python files are run.

    Raises `ScriptError` if the file does not load, `HandlerError` if it has no handler function, `IsolateError` if
    JavaScript cannot run here, `UsageError` if the file cannot be read.
    """
    try:
        if target.is_script:
            return app.add_script(target.path, target.file)
        module = load_module(target.file)
        check_module(module)
        return app.add_handler(target.path, module)
    except HandlerError as error:
        raise placed(error, target) from error
    except OSError as error:
        raise UsageError(f"{target.file}: {error.strerror or error}") from error


def check_module(module: ModuleType) -> None:
    """Raise `HandlerError` for a module that has no handler functions, but a `WebSocketApp` for a WSGI server."""
    from wsthreads.app import WebSocketApp

    parts = vars(module)
    if parts.keys() & set(HOOKS):
        return
    for name, app in parts.items():
        if isinstance(app, WebSocketApp):
            # Name no application: a login could be around the one that is named, and clients would bypass it.
            raise HandlerError(
                f"it has a WebSocketApp, which a WSGI server serves: gunicorn -k wsthreads.gunicorn.ThreadWorker "
                f"{Path(module.__file__ or '').stem}:APPLICATION, where APPLICATION is the outermost WSGI application, "
                f"with the login if there is one. This command takes files with handler functions: {', '.join(HOOKS)}",
                name,
            )


def placed(error: HandlerError, target: Target) -> HandlerError:
    """The error with its place in front: the file as the user named it, line and column."""
    names = names_in(source_of(target), in_script=target.is_script)
    line_and_column = names.get(error.about or "", (None, None))
    place = ":".join(str(part) for part in (target.file, *line_and_column) if part is not None)
    message = re.sub(rf"\A{re.escape(target.file.name)}(#\d+)*[ .]", "", str(error))  # the name is in the place
    better = HandlerError(f"{place}: {message}", error.about)
    better.path, (better.line, better.column) = str(target.file), line_and_column
    return better


def source_of(target: Target) -> str:
    """The text of a handler file. Empty if it cannot be read any more."""
    try:
        return target.file.read_text("utf-8", "replace")
    except OSError:
        return ""


def load_module(file: Path) -> ModuleType:
    """Run a Python file as a module, and return the module.

    The file can import the files beside it, as with ``python file.py``. The module of ``chat.py`` is named ``chat``, so
    that other processes, such as those of multiprocessing, can import it. If another module has that name, the name is
    that of the file, such as ``json.py``. No import statement can spell it, so it hides no other module. A file that is
    loaded twice is run twice.

    Raises `ScriptError`, with file and line, for any exception of the file except KeyboardInterrupt, and `OSError` if
    the file cannot be read.
    """
    written, file = file, file.absolute()
    source = file.read_bytes()
    try:
        code = compile(source, str(file), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ScriptError(f"SyntaxError: {error.msg}", str(written), error.lineno, error.offset) from error
    except ValueError as error:  # a NUL, before Python 3.12
        raise ScriptError(f"SyntaxError: {error}", str(written)) from error

    module = _module_for(file)
    name = module.__name__
    earlier = sys.modules.get(name)
    sys.modules[name] = module
    folder = str(file.parent)
    sys.path.insert(0, folder)
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if earlier is not None:
            sys.modules[name] = earlier
        if isinstance(error, KeyboardInterrupt):  # Ctrl-C: this is usually the main thread
            raise
        place, line = _place_in(folder, error, default=str(file))
        if Path(place).is_relative_to(folder):  # as the user named it
            place = str(written.parent / Path(place).relative_to(folder))
        raise ScriptError(_summary(error), place, line) from error
    finally:
        sys.path.remove(folder)
    if folder not in sys.path:
        sys.path.append(folder)  # for imports inside functions; last, so that it hides no other modules
    return module


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


#: The `loader_state` of modules that are handler files. A newer module may replace them.
_OURS = "wsthreads.cli.targets"


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
    except (ImportError, ValueError):  # a finder of the user's may raise them
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


def create_app(
    *targets: str | os.PathLike[str],
    wsgi_app: WSGIApplication | None = None,
    static: str | os.PathLike[str] | None = None,
    path: str | None = None,
    redis: Any = None,
    **settings: Any,
) -> WebSocketApp:
    """A `WebSocketApp` that serves handler files, for a WSGI server: ``gunicorn 'wsthreads:create_app("chat.js")'``.

    - `targets` and `path` mean the same as for ``wsthreads run``. `settings` are those of `Config`.
    - `static` is a folder whose files are served beside the endpoints.
    - `wsgi_app` gets all other requests. Without it, they get a 404, and `serve_health` is on by default.
    - `redis` is the URL of a Redis through which all processes share their rooms. The default is WSTHREADS_REDIS. False
      means no Redis.

    Under gunicorn, the console of scripts and all warnings go to its error log, unless you have configured logging.
    Raises `ScriptError`, `HandlerError` or `IsolateError` if a target does not load, `UsageError` if a target or
    `static` does not exist, `ConfigError` for a setting that is not valid.
    """
    from wsthreads.app import WebSocketApp
    from wsthreads.servers.static import StaticFiles

    log_to_gunicorn()
    found = find_targets(targets, path)
    if not found:
        raise UsageError("nothing to serve: name a handler file, such as chat.js")
    if wsgi_app is None:
        config: Config | None = settings.get("config")
        if config is None:
            settings.setdefault("serve_health", True)
        elif config.serve_health is None:
            settings["config"] = replace(config, serve_health=True)
    if static is not None:
        wsgi_app = StaticFiles(static, wsgi_app)
    app = WebSocketApp(wsgi_app, redis=redis, **settings)
    for target in found:
        add_target(app, target)
    return app
