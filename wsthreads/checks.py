"""What ``wsthreads check`` says of a handler file: which functions it has, and what looks like a mistake."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from wsthreads.config import Config
from wsthreads.dashboard import spelled
from wsthreads.errors import HandlerError, UsageError
from wsthreads.handlers import HOOKS, PythonHandler
from wsthreads.metrics import Metrics
from wsthreads.sources import did_you_mean, names_in
from wsthreads.targets import Target, load_module, placed, source_of

__all__ = ["Finding", "check_target", "remarks_on"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The handler functions of a file, as their author spells them; remarks, which begin with ``file:line:column``."""

    functions: tuple[str, ...]
    remarks: tuple[str, ...]


def check_target(target: Target) -> Finding:
    """Load a handler file, without serving it. Raises what `add_target` does."""
    try:
        if target.is_script:
            from wsthreads.javascript import check_script

            hooks = check_script(target.file, Config()).hooks
        else:
            hooks = PythonHandler(load_module(target.file), Metrics()).hooks
    except HandlerError as error:
        raise placed(error, target) from error
    except OSError as error:
        raise UsageError(f"{target.file}: {error.strerror or error}") from error
    return Finding(tuple(spelled(hooks, in_script=target.is_script)), remarks_on(target, hooks))


def remarks_on(target: Target, hooks: Collection[str]) -> tuple[str, ...]:
    """What looks like a mistake in a handler file that has those of `HOOKS`: names that are nearly those of others."""
    missing = spelled([hook for hook in HOOKS if hook not in hooks], in_script=target.is_script)
    remarks = []
    for name, (line, column) in names_in(source_of(target), in_script=target.is_script).items():
        meant = did_you_mean(name, missing)
        if meant is not None:
            remarks.append(f"{target.file}:{line}:{column}: {name} is never called; did you mean {meant}?")
    return tuple(remarks)
