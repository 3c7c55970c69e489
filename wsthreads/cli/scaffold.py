"""Makes the files that ``wsthreads new`` writes: a chat to start from, with a page, a test, and types for editors."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from wsthreads.cli.deployment import Served, deployment_files, find_served
from wsthreads.errors import UsageError

__all__ = ["LANGUAGES", "editor_files", "scaffold"]

#: The suffix of a handler's file, for each language.
LANGUAGES = {"javascript": ".js", "typescript": ".ts", "python": ".py"}

#: The file through which an editor finds the types of a folder, for each suffix of a script.
_CONFIGS = {".js": "jsconfig.json", ".mjs": "jsconfig.json", ".ts": "tsconfig.json"}

#: Matches names that need no escape in a URL, and are also valid for Python modules.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def scaffold(
    folder: str | os.PathLike[str],
    language: str | None = None,
    *,
    deploy: bool = False,
    app: str = "",
    env_file: str = "",
    allow_net: Sequence[str] = (),
) -> list[Path]:
    """Make a folder with a handler, its page, its test and its types. Returns the paths of the written files.

    If a handler is among the files, it is the first. With `deploy`, the files for deployment are added. If the folder
    has handlers already, or if `app` names an application, only the files for deployment are written. The default
    language is JavaScript. `env_file` and `allow_net` are settings of the scripts that gunicorn will serve.

    Raises `UsageError`, and writes no file, if the name is not valid for a handler, if one of the files exists already,
    or if `find_served` raises the error. Also raises it if `env_file` or `allow_net` is given for an application,
    because an application passes these settings itself.
    """
    if not os.fspath(folder):
        raise UsageError("the folder has no name; . is the current directory")
    folder = Path(folder)
    name = os.path.basename(os.path.realpath(folder))
    served = find_served(folder, app) if deploy else None
    texts: dict[str, str] = {}
    if served is None:
        texts = _chat_files(name, language or "javascript")
        served = Served(handlers=(next(iter(texts)),), static="public")
    elif language is not None:
        what = f"the application is {served.app}" if served.app else f"this folder has {', '.join(served.handlers)}"
        raise UsageError(f"{what}, and --deploy writes no new handler then: leave out --{language}")
    if deploy:
        if served.app and (env_file or allow_net):
            raise UsageError(
                f"{served.app} has to pass env_file and allow_net itself, to create_app() or to add_script() and "
                "WebSocketApp()"
            )
        texts |= deployment_files(name, replace(served, env_file=env_file, allow_net=tuple(allow_net)))
    return _write(folder, texts)


def _chat_files(name: str, language: str) -> dict[str, str]:
    """Returns the text of each file, by the file's path in the folder. The handler is the first file."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"a name has letters, digits, - and _, and begins with a letter; not {name!r}")
    suffix = LANGUAGES[language]
    sources = {
        f"{name}{suffix}": "chat.py.txt" if suffix == ".py" else f"chat{suffix}",
        f"test_{name.replace('-', '_')}.py": "test_chat.py.txt",
        "public/index.html": "index.html",
    }
    texts = {
        path: _template(source).replace("chat.EXT", name + suffix).replace("/ws/chat", f"/ws/{name}")
        for path, source in sources.items()
    }
    return texts if suffix == ".py" else texts | _types_for(suffix)


def editor_files(script: Path) -> dict[Path, str]:
    """Returns the files that tell an editor a script's types.

    These are a ``wsthreads.d.ts``, and a configuration if there is none.
    """
    folder, texts = script.parent, _types_for(script.suffix)
    if any((folder / config).exists() for config in _CONFIGS.values()):
        del texts[_CONFIGS[script.suffix]]
    return {folder / path: text for path, text in texts.items()}


def _types_for(suffix: str) -> dict[str, str]:
    types = resources.files("wsthreads.javascript") / "types" / "wsthreads.d.ts"
    return {_CONFIGS[suffix]: _template(_CONFIGS[suffix]), "wsthreads.d.ts": types.read_text("utf-8")}


def _template(name: str) -> str:
    """Returns the text of a template.

    Templates in Python end with .txt, so that tools do not check them as our own code.
    """
    return (resources.files(__package__) / "templates" / name).read_text("utf-8")


def _write(folder: Path, texts: dict[str, str]) -> list[Path]:
    files = {folder / path: text for path, text in texts.items()}
    existing = sorted(str(path) for path in files if os.path.lexists(path))
    if existing:
        raise UsageError(f"nothing was written, since these exist: {', '.join(existing)}")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error
    return list(files)
