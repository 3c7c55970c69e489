"""Makes any exception of an application's code safe to log, whatever its class and the length of its text.

`logging` and `traceback` use the truth value and the attributes of an exception, and show its whole text. An exception
class of an application can raise an error at each of these steps. The text of an exception can also have many
megabytes, because it can contain a message that a client has sent.
"""

from __future__ import annotations

from traceback import TracebackException
from types import TracebackType
from typing import Any

from wsthreads.errors import counted

__all__ = [
    "MAX_TEXT_CHARS",
    "bounded",
    "cause_of",
    "exc_info_of",
    "members_of",
    "notes_of",
    "summary_of",
    "text_of",
    "traceback_of",
]

#: At most this many characters of an exception and its causes are shown. Errors of scripts have the same limit.
MAX_TEXT_CHARS = 20_000

#: If an exception cannot be logged itself, a copy is logged, with at most this many causes.
MAX_CAUSES = 10

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def exc_info_of(error: BaseException) -> ExcInfo:
    """Returns a safe `exc_info` for logging: of the error itself, or of a copy if logging the error would fail."""
    try:
        plain = type(error), error, traceback_of(error)
        shown = TracebackException(*plain, limit=0)
        if sum(map(len, shown.format())) <= MAX_TEXT_CHARS:
            return plain
    except BaseException:
        pass
    twin = _twin_of(error)
    return type(twin), twin, twin.__traceback__


def traceback_of(error: BaseException) -> TracebackType | None:
    """Returns the traceback of an exception, even if its class overrides `__traceback__`."""
    found: TracebackType | None = _slot("__traceback__", error)
    return found


def cause_of(error: BaseException) -> BaseException | None:
    """Returns the exception that a traceback shows before `error`: its cause or its context. None if there is none."""
    cause: BaseException | None = _slot("__cause__", error)
    if cause is not None or _slot("__suppress_context__", error):
        return cause
    context: BaseException | None = _slot("__context__", error)
    return context


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """Returns the exceptions in an exception group. Empty for any other exception."""
    try:
        found = error.exceptions  # type: ignore[attr-defined]  # also of the package exceptiongroup, for Python 3.10
        return tuple(each for each in found if isinstance(each, BaseException)) if isinstance(found, tuple) else ()
    except BaseException:  # there is no such attribute, or the class raises an exception
        return ()


def notes_of(error: BaseException) -> list[str]:
    """Returns the texts that were added by `BaseException.add_note`."""
    try:
        return [note for note in vars(error).get("__notes__", ()) if isinstance(note, str)]
    except BaseException:  # the class may raise any exception
        return []


def summary_of(error: BaseException) -> str:
    """Returns the type and the text of an exception, even if its `__str__` raises an exception."""
    name, text = type(error).__name__, text_of(error)
    return f"{name} (no text: its __str__ failed)" if text is None else f"{name}: {text}"


def bounded(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """Returns at most `limit` characters of a text. If some are left out, the result says how many."""
    return text if len(text) <= limit else f"{text[:limit]}… ({counted(len(text) - limit, 'more character')})"


def _slot(name: str, error: BaseException) -> Any:
    return getattr(BaseException, name).__get__(error)


def text_of(error: BaseException) -> str | None:
    """Returns `str(error)`, or None if this raises an exception."""
    try:
        text = str(error)
        return text if type(text) is str else str.__str__(text)
    except BaseException:
        return None


def _twin_of(error: BaseException) -> Exception:
    """Returns a copy of an exception that has only its name, traceback, text and causes."""
    first = last = _alone(error, left := MAX_TEXT_CHARS)
    seen = {id(error)}
    for _ in range(MAX_CAUSES):
        left -= len(str(last))
        found = cause_of(error)
        if found is None or id(found) in seen:
            break
        seen.add(id(found))
        twin = _alone(found, max(left, 200))
        if _slot("__cause__", error) is not None:
            last.__cause__ = twin
        else:
            last.__context__ = twin
        error, last = found, twin
    return first


def _alone(error: BaseException, limit: int) -> Exception:
    kind, text = type(error), text_of(error)
    names = {name: type.__getattribute__(kind, name) for name in ("__module__", "__qualname__")}
    shown = f"<{kind.__name__} (no text: its __str__ failed)>" if text is None else bounded(text, limit)
    twin: Exception = type(kind.__name__, (Exception,), names)(shown)
    return twin.with_traceback(traceback_of(error))
