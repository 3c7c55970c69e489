"""The files that ``wsthreads new --deploy`` writes: for gunicorn, systemd, nginx, a container and Grafana."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from wsthreads.cli.targets import SUFFIXES, Target, find_targets, is_handler_file, source_of
from wsthreads.dashboard import spelled
from wsthreads.errors import UsageError
from wsthreads.sessions.hooks import SCRIPT_HOOKS
from wsthreads.sessions.source_names import names_in

__all__ = ["Served", "deployment_files", "find_served", "needs_of"]

#: Matches a WSGI application as gunicorn names it: ``module:name``.
_APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

#: The names of wsthreads that make a WSGI application when they are called.
_MAKERS = ("WebSocketApp", "create_app")

#: Match a script that imports `env`, and a script that calls `fetch`.
_ENV = re.compile(r"""\bimport\s*\{[^}]*\benv\b[^}]*\}\s*from\s*["']wsthreads["']""")
_FETCH = re.compile(r"(?<![\w.$])fetch\s*\(")

_HANDLERS = """\
handlers = {handlers}
settings = {{{static}{for_scripts}
    "serve_client": True,  # wsthreads.js, for pages
    "trusted_proxies": int(os.environ.get("TRUSTED_PROXIES", "0")),  # 1 behind nginx
    "resume_s": float(os.environ.get("RESUME_S", "0")),  # 60: sessions wait for clients that lost their connections
    "serve_metrics": os.environ.get("METRICS", "0") != "0",  # 1 for Prometheus
}}
arguments = [*map(repr, handlers), *(f"{{name}}={{value!r}}" for name, value in settings.items())]
wsgi_app = f"wsthreads:create_app({{', '.join(arguments)}})\""""

_APPLICATION = """\
# For nginx and Prometheus, pass the variables on to your WebSocketApp:
#     trusted_proxies=int(os.environ.get("TRUSTED_PROXIES", "0")), serve_metrics=os.environ.get("METRICS", "0") != "0",
#     resume_s=float(os.environ.get("RESUME_S", "0"))
wsgi_app = "{app}\""""


@dataclass(frozen=True, slots=True)
class Served:
    """What gunicorn will serve: handler files and the static files of a folder, or a WSGI application."""

    handlers: tuple[str, ...] = ()
    static: str = ""
    app: str = ""
    #: For scripts: the file with the names of `env`, and the hosts that the scripts may fetch from.
    env_file: str = ""
    allow_net: tuple[str, ...] = ()


def find_served(folder: Path, app: str = "") -> Served | None:
    """Returns what to serve from a folder: `app` if it is given, otherwise an application or handlers in the folder.

    Runs no code of the folder.

    Returns None if there is nothing to serve. Raises `UsageError` for an `app` that is not like ``module:name``, for
    several applications, and for Python files without a handler and without an application that gunicorn could name.
    """
    if app:
        if not _APP.fullmatch(app):
            raise UsageError(f"--app must be a module and a name in it, such as app:app, not {app!r:.100}")
        return Served(app=app)
    files = sorted(file for file in folder.iterdir() if _is_code(file)) if folder.is_dir() else []
    apps = [app for app in map(_app_in, files) if app]
    if len(apps) > 1:
        raise UsageError(f"{folder}: there are several applications, {', '.join(apps)}: choose one with --app")
    if apps:
        return Served(app=apps[0])
    targets = find_targets(file for file in files if _has_hooks(Target("", file)))
    if targets:
        static = "public" if (folder / "public").is_dir() else ""
        return Served(tuple(target.file.name for target in targets), static)
    if any(file.suffix == ".py" for file in files):
        raise UsageError(
            f"{folder}: there are Python files, but no handler and no WebSocketApp: "
            "name your WSGI application with --app, such as --app mysite.wsgi:application"
        )
    return None


def deployment_files(name: str, served: Served) -> dict[str, str]:
    """Returns the text of each file, by the file's path in the folder.

    `name` is the name of the service, and of its folder in /srv.
    """
    name = re.sub("[^A-Za-z0-9_-]+", "-", name).strip("-") or "app"
    if served.app:
        code = _APPLICATION.format(app=served.app)
    else:
        static = f'\n    "static": "{served.static}",' if served.static else ""
        for_scripts = f'\n    "env_file": {_quoted(served.env_file)},' if served.env_file else ""
        if served.allow_net:
            for_scripts += f'\n    "allow_net": {_quoted(served.allow_net)},'
        code = _HANDLERS.format(handlers=_quoted(served.handlers), static=static, for_scripts=for_scripts)
    templates = resources.files(__package__) / "templates" / "deploy"
    config = (templates / "gunicorn.conf.py.txt").read_text("utf-8").replace("NAME", name).replace("SERVED", code)
    files = {"gunicorn.conf.py": config}
    for file in ("NAME.service", "nginx.conf", "Containerfile", "Containerfile.dockerignore", "grafana.json"):
        files[f"deploy/{file.replace('NAME', name)}"] = (templates / file).read_text("utf-8").replace("NAME", name)
    if served.env_file:
        files["deploy/Containerfile.dockerignore"] += f"{served.env_file}\n"
    return files


def needs_of(
    folder: Path, *, app: str = "", env_file: str = "", allow_net: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Returns what the scripts in a folder use without the setting for it, such as `fetch` without `allow_net`.

    Runs no code of the folder.

    Each pair has what the scripts use, and the setting to add. Returns no pairs if an application serves the scripts,
    because the application passes the settings itself.
    """
    served = find_served(folder, app)
    if served is None or served.app:
        return []
    sources = [source_of(Target("", folder / name)) for name in served.handlers if not name.endswith(".py")]
    needs = []
    if not env_file and any(_ENV.search(source) for source in sources):
        needs.append(("env", '"env_file": ".env"'))
    if not allow_net and any(_FETCH.search(source) for source in sources):
        needs.append(("fetch", '"allow_net": ["HOST"]'))
    return needs


def _quoted(value: str | tuple[str, ...]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_code(file: Path) -> bool:
    return file.suffix in SUFFIXES and is_handler_file(file)


def _has_hooks(target: Target) -> bool:
    names = names_in(source_of(target), in_script=target.is_script)
    return not names.keys().isdisjoint(spelled(SCRIPT_HOOKS, in_script=target.is_script))


def _app_in(file: Path) -> str:
    """Returns the application with a `WebSocketApp` that a Python file makes, as ``module:name``.

    Empty if there is none.

    Raises `UsageError` for an application that is made inside a function. Also raises it if another application may be
    around the application, such as a login, because clients of the inner application would bypass the login.
    """
    if file.suffix != ".py":
        return ""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    makers = {f"wsthreads.{name}" for name in _MAKERS}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "wsthreads":
            makers |= {alias.asname or alias.name for alias in node.names if alias.name in _MAKERS}
    if not _calls(tree, makers):
        return ""
    made: list[str] = []  # names of applications that are made by ``app = WebSocketApp(…)``
    around: list[str] = []  # names of applications that are made by ``app.wsgi_app = WebSocketApp(…)``
    for node in tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Attribute) and target.attr == "wsgi_app":
                around.append(ast.unparse(target.value))
            elif isinstance(target, ast.Name) and _calls(node, makers):
                made.append(target.id)
    if not made and not around:
        raise UsageError(f"{file}: it makes its WebSocketApp in a function: name the application with --app")
    if around:
        return f"{file.stem}:{around[-1]}"
    line = _use_of(made[-1], tree)
    if line:
        raise UsageError(
            f"{file}:{line}: another application may be around {made[-1]}, for example a login: name the outermost one "
            f"with --app, such as --app {file.stem}:application"
        )
    return f"{file.stem}:{made[-1]}"


def _use_of(name: str, tree: ast.Module) -> int:
    """Returns the first line that calls an application or passes it on. Returns 0 if no line does.

    The result of such a call may be another application around the first one.
    """
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    renewed = {
        inner
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)
        for inner in ast.walk(node.value)
    }
    uses = [
        node.lineno
        for node in parents
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
        and node not in renewed and not isinstance(parents[node], ast.Attribute)
    ]
    return min(uses, default=0)


def _calls(tree: ast.AST, functions: set[str]) -> bool:
    return any(isinstance(node, ast.Call) and ast.unparse(node.func) in functions for node in ast.walk(tree))
