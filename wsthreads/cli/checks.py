"""Loads a handler file for ``wsthreads check``: finds its handler functions, and names that are probably misspelt."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import IO

from wsthreads.cli.targets import Target, check_module, placed, source_of
from wsthreads.config import Config
from wsthreads.dashboard import spelled
from wsthreads.errors import HandlerError, UsageError
from wsthreads.monitoring.logs import block
from wsthreads.monitoring.metrics import Metrics
from wsthreads.sessions.handlers import PythonHandler
from wsthreads.sessions.hooks import HOOKS, RESUMING_HOOKS, SCRIPT_HOOKS
from wsthreads.sessions.python_files import load_module
from wsthreads.sessions.source_names import did_you_mean, names_in

__all__ = ["Finding", "all_logs_hidden", "check_target", "console_shown", "remarks_on"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in a file: the names of its handler functions, as its language spells them, and remarks.

    Each remark begins with ``file:line:column``.
    """

    functions: tuple[str, ...]
    remarks: tuple[str, ...]
    #: For each Python file that a script imports: the path and the text of a ``.d.ts`` file for it.
    declarations: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def all_logs_hidden() -> Iterator[None]:
    """A context manager that hides all log lines, because `check_target` reports mistakes of Python handlers itself."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def console_shown(stream: IO[str]) -> Iterator[None]:
    """A context manager that writes a script's console output to `stream`, each message with its file, line and column.

    The console output includes errors in timers and promises.
    """
    handler, logger = logging.StreamHandler(stream), logging.getLogger("wsthreads.script")
    handler.setFormatter(_ConsoleFormatter())
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


class _ConsoleFormatter(logging.Formatter):
    """Writes ``file:line:column:``, the level (unless it is info), and the escaped message."""

    def format(self, record: logging.LogRecord) -> str:
        told = record.__dict__
        place = ":".join(str(told[name]) for name in ("file", "line", "column") if name in told)
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{place or record.name.rpartition('script.')[2]}: {level}{block(record.getMessage())}"


def check_target(
    target: Target,
    *,
    env: Mapping[str, str] | None = None,
    config: Config | None = None,
    modules: Mapping[str, ModuleType] | None = None,
) -> Finding:
    """Load a handler file without serving it. Raises the errors of `add_target`."""
    declarations: Mapping[str, str] = {}
    remarks: tuple[str, ...] = ()
    try:
        if target.is_script:
            from wsthreads.javascript import check_script

            found = check_script(target.file, config or Config(), env=env, modules=modules)
            hooks, declarations, remarks = found.hooks, found.declarations, found.remarks
        else:
            module = load_module(target.file)
            check_module(module)
            hooks = PythonHandler(module, Metrics()).hooks
    except HandlerError as error:
        raise placed(error, target) from error
    except OSError as error:
        raise UsageError(f"{target.file}: {error.strerror or error}") from error
    resumes = (config or Config()).resume_s > 0
    remarks = (*remarks_on(target, hooks, resumes=resumes), *remarks)
    return Finding(tuple(spelled(hooks, in_script=target.is_script)), remarks, declarations)


def remarks_on(target: Target, hooks: Collection[str], *, resumes: bool) -> tuple[str, ...]:
    """Returns remarks on probable mistakes in a handler file.

    These are misspelt names of handler functions, and handler functions that are never called.

    `hooks` are the names of the handler functions in the file. If `resumes` is False, the server resumes no sessions,
    and never calls some of these functions.
    """
    known = SCRIPT_HOOKS if target.is_script else HOOKS
    missing = spelled([hook for hook in known if hook not in hooks], in_script=target.is_script)
    remarks = []
    names = names_in(source_of(target), in_script=target.is_script)
    idle = [] if resumes else spelled([hook for hook in RESUMING_HOOKS if hook in hooks], in_script=target.is_script)
    if idle:
        place = "".join(f":{number}" for number in names.get(idle[0], ()))
        shown = f"{' and '.join(idle)} {'are' if len(idle) > 1 else 'is'}"
        remarks.append(f"{target.file}{place}: {shown} never called: resume_s is 0; set it with --resume-s 60")
    for name, (line, column) in names.items():
        meant = did_you_mean(name, missing)
        if meant is not None:
            remarks.append(f"{target.file}:{line}:{column}: {name} is never called; did you mean {meant}?")
    return tuple(remarks)
