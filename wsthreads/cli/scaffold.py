"""What ``wsthreads new`` writes: a chat to start from, with a page, a test, and types for the editor."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from wsthreads.errors import UsageError

__all__ = ["LANGUAGES", "scaffold"]

#: The suffix of a handler's file, by its language.
LANGUAGES = {"javascript": ".js", "typescript": ".ts", "python": ".py"}

#: Names that stand in a URL as they are, and make a module of Python's.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def scaffold(folder: str | os.PathLike[str], language: str) -> list[Path]:
    """Make a folder with a handler of the folder's name, and all that belongs to it. Returns the files, it first.

    Raises `UsageError` for a name that makes no handler's, and if any of the files is there already: then none is
    written.
    """
    if not os.fspath(folder):
        raise UsageError("the folder has no name; . is the current directory")
    folder = Path(folder)
    name = os.path.basename(os.path.realpath(folder))
    if not _NAME.fullmatch(name):
        raise UsageError(f"a name has letters, digits, - and _, and begins with a letter; not {name!r}")
    suffix = LANGUAGES[language]
    templates = resources.files(__package__) / "templates"  # .txt keeps tools from taking them for our own code
    types = resources.files("wsthreads.javascript") / "types" / "wsthreads.d.ts"
    sources = {
        f"{name}{suffix}": templates / ("chat.py.txt" if suffix == ".py" else f"chat{suffix}"),
        f"test_{name.replace('-', '_')}.py": templates / "test_chat.py.txt",
        "public/index.html": templates / "index.html",
    }
    if suffix != ".py":
        config = {".js": "jsconfig.json", ".ts": "tsconfig.json"}[suffix]
        sources |= {config: templates / config, "wsthreads.d.ts": types}
    texts = {
        folder / path: source.read_text("utf-8").replace("chat.EXT", name + suffix).replace("/ws/chat", f"/ws/{name}")
        for path, source in sources.items()
    }
    there = sorted(str(path) for path in texts if os.path.lexists(path))
    if there:
        raise UsageError(f"nothing was written, since there is already: {', '.join(there)}")
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error
    return list(texts)
