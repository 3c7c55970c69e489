"""Makes any exception of a user's code safe to log, whatever its class and the length of its text.

`logging` and `traceback` use an exception's truth value and attributes, and show its whole text. A user's exception
class can raise an error at each of these steps. It can also have a text of many megabytes that a client sent.
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

#: How many characters of an exception and its causes are shown at most. Errors of scripts have the same limit.
MAX_TEXT_CHARS = 20_000

#: If an exception cannot be logged as it is, a copy is logged. The copy has at most this many causes.
MAX_CAUSES = 10

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def exc_info_of(error: BaseException) -> ExcInfo:
    """A safe `exc_info` for logging: of the error itself, or of a copy if logging the error would fail."""
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
    """The traceback of an exception, even if the exception's class overrides `__traceback__`."""
    found: TracebackType | None = _slot("__traceback__", error)
    return found


def cause_of(error: BaseException) -> BaseException | None:
    """The exception that a traceback shows before `error`: its cause or its context."""
    cause: BaseException | None = _slot("__cause__", error)
    if cause is not None or _slot("__suppress_context__", error):
        return cause
    context: BaseException | None = _slot("__context__", error)
    return context


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The exceptions in an exception group. Empty for any other exception."""
    try:
        found = error.exceptions  # type: ignore[attr-defined]  # also of the package exceptiongroup, for Python 3.10
        return tuple(each for each in found if isinstance(each, BaseException)) if isinstance(found, tuple) else ()
    except BaseException:  # no attribute, or anything that the class raises
        return ()


def notes_of(error: BaseException) -> list[str]:
    """The texts of `BaseException.add_note`."""
    try:
        return [note for note in vars(error).get("__notes__", ()) if isinstance(note, str)]
    except BaseException:  # anything that the class raises
        return []


def summary_of(error: BaseException) -> str:
    """An exception's type and text, even if its `__str__` raises."""
    name, text = type(error).__name__, text_of(error)
    return f"{name} (no text: its __str__ failed)" if text is None else f"{name}: {text}"


def bounded(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """At most `limit` characters of a text. If characters are left out, says how many."""
    return text if len(text) <= limit else f"{text[:limit]}… ({counted(len(text) - limit, 'more character')})"


def _slot(name: str, error: BaseException) -> Any:
    return getattr(BaseException, name).__get__(error)


def text_of(error: BaseException) -> str | None:
    """`str(error)`, or None if that raises."""
    try:
        text = str(error)
        return text if type(text) is str else str.__str__(text)
    except BaseException:
        return None


def _twin_of(error: BaseException) -> Exception:
    """A copy of an exception that has only its name, traceback, text and causes."""
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
