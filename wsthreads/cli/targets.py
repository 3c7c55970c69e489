"""Finds and loads the targets of the command line: handler files and directories of them, each served at a path.

A *target* is a ``.js``, ``.mjs``, ``.ts`` or ``.py`` file, or a directory with such files. ``chat.js`` is served at
``/ws/chat``. In a directory, these files are not handlers: files whose name begins with ``_`` or ``.``, which other
files import; the files of pytest (``test_*.py``, ``conftest.py``) and of gunicorn (``gunicorn.conf.py``); and types
(``*.d.ts``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wsthreads.errors import HandlerError, UsageError
from wsthreads.monitoring.gunicorn_logs import log_to_gunicorn
from wsthreads.sessions.hooks import HOOKS
from wsthreads.sessions.python_files import load_module
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

#: Matches names that need no escape in a URL (RFC 3986, 2.3: unreserved characters).
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
    """Returns the handler files of all `targets`. Each has its path, which is ``/ws/<name>`` unless `path` is given.

    Reads directories, but opens no file. Leaves out ``.d.ts`` files beside other targets. A `path` may have parameters,
    such as ``/ws/rooms/<name>``.

    Raises `UsageError` for a target that does not exist or is not a handler file, for a directory without handlers, for
    a name that needs an escape in a URL, for two files with the same path, and for a `path` that is invalid or is given
    for several files.
    """
    paths = [_path_of(target) for target in targets]
    # the pattern *.ts of a shell includes the .d.ts files
    named = [each for each in paths if not each.name.endswith(".d.ts")] or paths
    files = [file for target in named for file in _files_of(target)]
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
            raise UsageError(f"{other.file} and {file} would both have the path {target.path}; rename one")
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
    if not os.path.isfile(target):  # reading from a pipe or a device could take forever
        raise UsageError(f"{target}: not a regular file")
    return [target]


def is_handler_file(file: Path) -> bool:
    """Whether a file in a directory is a handler, according to its name."""
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


def add_target(
    app: WebSocketApp,
    target: Target,
    modules: Mapping[str, ModuleType] | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> Endpoint:
    """Load a handler file, and add it to `app`. `load_module` runs a Python file.

    `modules` and `env` are for scripts: see `WebSocketApp.add_script`.

    Raises `ScriptError` if the file does not load, `HandlerError` if it has no handler function, `IsolateError` if
    JavaScript cannot run here, and `UsageError` if the file cannot be read.
    """
    try:
        if target.is_script:
            return app.add_script(target.path, target.file, modules=modules, env=env)
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
            # No application is suggested: a login could be around this application, and clients would bypass the login.
            raise HandlerError(
                f"it has a WebSocketApp, which a WSGI server serves: gunicorn -k wsthreads.gunicorn.ThreadWorker "
                f"{Path(module.__file__ or '').stem}:APPLICATION, where APPLICATION is the outermost WSGI application, "
                f"with the login if there is one. This command takes files with handler functions: {', '.join(HOOKS)}",
                name,
            )


def placed(error: HandlerError, target: Target) -> HandlerError:
    """Returns the error with its place before its text: the file as the user has named it, the line and the column."""
    names = names_in(source_of(target), in_script=target.is_script)
    line_and_column = names.get(error.about or "", (None, None))
    place = ":".join(str(part) for part in (target.file, *line_and_column) if part is not None)
    message = re.sub(rf"\A{re.escape(target.file.name)}(#\d+)*[ .]", "", str(error))  # the place names the file already
    better = HandlerError(f"{place}: {message}", error.about)
    better.path, (better.line, better.column) = str(target.file), line_and_column
    return better


def source_of(target: Target) -> str:
    """Returns the text of a handler file. Empty if it cannot be read any more."""
    try:
        return target.file.read_text("utf-8", "replace")
    except OSError:
        return ""


def create_app(
    *targets: str | os.PathLike[str],
    wsgi_app: WSGIApplication | None = None,
    static: str | os.PathLike[str] | None = None,
    path: str | None = None,
    redis: Any = None,
    modules: Mapping[str, ModuleType] | None = None,
    env: Mapping[str, str] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> WebSocketApp:
    """Returns a `WebSocketApp` that serves handler files.

    A WSGI server uses it like this: ``gunicorn 'wsthreads:create_app("chat.js")'``.

    - `targets` and `path` mean the same as for ``wsthreads run``. `settings` are the settings of `Config`.
    - `static` is a folder whose files are served, too.
    - `wsgi_app` gets all other requests. Without it, these requests get a 404, and `serve_health` is on by default.
    - `redis` is the URL of the Redis through which all processes share their rooms. The default is WSTHREADS_REDIS.
      False means no Redis.
    - `modules` are Python modules whose functions scripts may import, by the names that the scripts use for them.
    - `env` maps names to texts, for ``import { env } from "wsthreads"`` in scripts. No log shows the texts.
    - `env_file` is a file of lines NAME=value with more such names and texts. If a name is in both, the text in `env`
      is used.

    Under gunicorn, the console output of scripts and all warnings go to gunicorn's error log, unless you have
    configured logging. Raises `ScriptError`, `HandlerError` or `IsolateError` if a target does not load, `UsageError`
    if a target or `static` does not exist, and `ConfigError` for a setting that is not valid.
    """
    from wsthreads.app import WebSocketApp
    from wsthreads.servers.static import StaticFiles

    log_to_gunicorn()
    if env_file is not None:
        from wsthreads.javascript.environment import read_env_file  # only an app with scripts needs it

        env = {**read_env_file(env_file), **(env or {})}
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
        add_target(app, target, modules, env=env)
    return app
