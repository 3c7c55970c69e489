"""Watches the files of the handlers for ``wsthreads run --reload``.

A script that changes is loaded again. Its sessions stay, and the next call runs the new code. Python code cannot be
replaced while threads run it. So the server restarts if a Python handler changes, or if a handler file appears in a
directory or disappears from it.

A *stamp* identifies a version of a file. The *check* is a run of ``wsthreads check`` with the new files.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from wsthreads.cli.checks import remarks_on
from wsthreads.cli.targets import SUFFIXES, Target, placed
from wsthreads.errors import HandlerError, ScriptError, UsageError, WSThreadsError
from wsthreads.loggers import get_logger

if TYPE_CHECKING:
    from wsthreads.app import WebSocketApp

__all__ = ["Reloader"]

log = get_logger(__name__)

#: The check of the files before a restart may take at most this long, in seconds.
CHECK_TIMEOUT_S = 30.0

#: Identifies a file and its last change. None if the file does not exist.
Stamp = tuple[int, ...] | None

#: While the check fails, at most this many files and folders around the handlers are watched. If the check fails
#: because an import is missing, the missing file may appear there.
MAX_BESIDE = 5000


class Reloader:
    """Looks at the files again and again, in a thread that runs from `start` to `stop`.

    Loads scripts again when they change, and calls `restart` for all other changes.

    `find` returns the current targets, which are the handler files. A mistake in a file must not end the server. So
    before a restart, the reloader runs ``wsthreads check`` with `check_arguments`. If this check fails, the reloader
    logs the error, and the old code stays in use.
    """

    def __init__(
        self,
        app: WebSocketApp,
        find: Callable[[], Sequence[Target]],
        restart: Callable[[], None],
        *,
        check_arguments: Sequence[str],
        interval_s: float = 0.5,
    ) -> None:
        self._app = app
        self._find = find
        self._restart = restart
        self._check_arguments = tuple(check_arguments)
        self._interval_s = interval_s
        self._done = Event()
        self._thread = Thread(target=self._run, name="wsthreads-reloader", daemon=True)
        # Only the reloader's thread uses the following attributes.
        # changed files whose check has failed; the server restarts when the check passes
        self._unserved: set[str] = set()
        self._gone: set[Path] = set()  # files that did not exist at the last look
        self._beside: dict[Path, Stamp] = {}  # files around the handlers; watched only while the check fails
        served = {endpoint.path for endpoint in app.endpoints}
        self._targets = tuple(target for target in find() if target.path in served)  # a new file may not be served yet
        self._scripts = {target: _stamps(self._files_of(target)) for target in self._targets if target.is_script}
        self._others = _stamps(self._other_files())

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for its end. A second call does nothing."""
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join(self._interval_s + 1)

    def _run(self) -> None:
        while not self._done.wait(self._interval_s):
            try:
                self._look()
            except Exception:
                log.exception("the search for changed files has failed")

    def _look(self) -> None:
        changed: set[str] = set()
        gone: set[Path] = set()
        for target, before in self._scripts.items():
            now = self._stamps_now(before, before, gone)
            if now != before:
                self._scripts[target] = self._reload(target, now)
                changed |= self._unserved  # the check may have failed because of this script
        try:
            targets = tuple(self._find())
        except UsageError as error:  # a file is missing, for example while an editor replaces it
            log.debug("%s", error)
            targets = self._targets
        changed |= {target.file.name for target in {*targets} ^ {*self._targets}}
        self._targets = targets
        now = self._stamps_now(self._other_files(), self._others, gone)
        self._gone = gone
        changed |= {file.name for file in now if file in self._others and now[file] != self._others[file]}
        self._others = now
        if self._unserved:  # the check has failed, perhaps because of an import whose file exists by now
            beside = _stamps(self._files_beside())
            changed |= {file.name for file in beside if beside[file] != self._beside.get(file)}
            self._beside = beside
        if not changed:
            return
        log.info("changed: %s; checking", ", ".join(sorted(changed)))
        beside = _stamps(self._files_beside())  # taken before the check reads these files
        complaint = _complaint(self._check_arguments)
        if complaint:
            self._unserved |= changed
            self._beside = beside
            context = {"kind": "reload", **self._place_in(complaint)}
            log.error("not restarted, the old code goes on: %s", complaint, extra=context)
        else:
            self._done.set()
            self._restart()

    def _stamps_now(self, files: Iterable[Path], before: dict[Path, Stamp], gone: set[Path]) -> dict[Path, Stamp]:
        """Returns the stamp of each file. Adds missing files to `gone`.

        A file that is missing for the first time keeps its stamp from `before`, because an editor may be saving the
        file.
        """
        now = _stamps(files)
        missing = {file for file, stamp in now.items() if stamp is None}
        gone |= missing
        return {**now, **{file: before.get(file) for file in missing - self._gone}}

    def _reload(self, target: Target, now: dict[Path, Stamp]) -> dict[Path, Stamp]:
        """Load a script again.

        Returns the stamps to watch: those in `now`, and those of files that the script imports newly.

        The stamps in `now` were taken before the load, so a change during the load is not missed. The log line is
        written after all stamps were taken, because a reader of the log may change the files at once.
        """
        handler: Any = self._app.endpoint(target.path).handler
        try:
            handler.reload()
        except WSThreadsError as error:
            # this file may be one that the script imports newly
            at_fault = [Path(error.path)] if isinstance(error, ScriptError) else []
            watched = {**_stamps([*at_fault, *self._files_of(target)]), **now}
            shown = placed(error, target) if isinstance(error, HandlerError) else error
            context = {"kind": "reload", "endpoint": target.path, **_place_of(shown)}
            log.error("%s not reloaded, the old code goes on: %s", target.file.name, shown, extra=context)
            return watched
        watched = {**_stamps(self._files_of(target)), **now}
        context = {"kind": "reload", "endpoint": target.path, "file": str(target.file)}
        log.info("%s reloaded", target.file.name, extra=context)
        for remark in remarks_on(target, handler.hooks, resumes=self._app.config.resume_s > 0):
            log.warning("%s", remark, extra={"endpoint": target.path})
        return watched

    def _place_in(self, complaint: str) -> dict[str, Any]:
        """Returns the first place in a target's file that the output of the check names, as fields of a log record."""
        for target in self._targets:
            file = str(target.file)
            found = re.search(rf"(?<!\S){re.escape(file)}(?::(\d+)(?::(\d+))?)?: ", complaint)
            if found is not None:
                numbers = zip(("line", "column"), found.groups(), strict=True)
                return {"endpoint": target.path, "file": file, **{name: int(n) for name, n in numbers if n}}
        return {}

    def _files_of(self, target: Target) -> Iterable[Path]:
        """Yields a script and its imports.

        Also yields the script's name as it was given, which may contain symbolic links.
        """
        handler: Any = self._app.endpoint(target.path).handler
        return [target.file, *map(Path, handler.files())]

    def _files_beside(self) -> Iterator[Path]:
        """Yields at most `MAX_BESIDE` files that targets could import, and that are not watched yet.

        Leaves out the files of installed packages.
        """
        watched = {file.absolute() for files in (self._others, *self._scripts.values()) for file in files}
        folders = sorted({target.file.absolute().parent for target in self._targets})
        found = (Path(folder, name) for top in folders for folder, names in _walk(top) for name in names)
        return islice((file for file in found if file.suffix in SUFFIXES and file not in watched), MAX_BESIDE)

    def _other_files(self) -> list[Path]:
        """Returns the Python handlers, the modules beside them, and new scripts."""
        files = [target.file.absolute() for target in self._targets if target not in self._scripts]
        folders = {file.parent for file in files if file.suffix == ".py"}
        for module in list(sys.modules.values()):
            name = getattr(module, "__file__", None)
            if isinstance(name, str) and "site-packages" not in name and not folders.isdisjoint(Path(name).parents):
                files.append(Path(name))
        return files


def _walk(top: Path) -> Iterator[tuple[str, list[str]]]:
    for folder, folders, names in islice(os.walk(top), MAX_BESIDE):
        is_installed = "pyvenv.cfg" in names or Path(folder).name in ("node_modules", "__pycache__", "site-packages")
        folders[:] = [] if is_installed else [name for name in sorted(folders) if not name.startswith(".")]
        if not is_installed:
            yield folder, names


def _stamps(files: Iterable[Path]) -> dict[Path, Stamp]:
    """Returns the stamp of each file.

    A stamp includes the inode, and the time of the last change of the inode. These differ if a file is replaced by
    another file of the same size and time, or if a symbolic link in its path is replaced.
    """
    stamps: dict[Path, Stamp] = {}
    for file in files:
        try:
            status = file.stat()
        except OSError:
            stamps[file] = None
        else:
            stamps[file] = (
                status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size,
            )  # fmt: skip
    return stamps


def _place_of(error: Exception) -> dict[str, Any]:
    """Returns the place of an error, as fields of a log record."""
    places = {"file": "path", "line": "line", "column": "column"}
    found = {name: getattr(error, attribute, None) for name, attribute in places.items()}
    return {name: value for name, value in found.items() if value is not None}


def _complaint(check_arguments: Sequence[str]) -> str:
    """Returns the errors of ``wsthreads check``, which runs in a process of its own. Empty if there are none."""
    command = [sys.executable, "-m", "wsthreads", "check", *check_arguments]
    try:
        check = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=CHECK_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"loading them takes more than {CHECK_TIMEOUT_S:g} s"
    if check.returncode == 0:
        return ""
    lines = [line.removeprefix("wsthreads: ") for line in check.stderr.splitlines()]
    return "; ".join(lines) or f"wsthreads check ended with status {check.returncode}"
