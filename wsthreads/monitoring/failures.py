"""Exceptions of a user's code, made fit for logging: whatever their class does, and however long their text is.

Logging and `traceback` ask an exception for its truth value and its attributes, and show its text whole. What a class
does then is its author's: it may raise, or give a text of many megabytes that a client has sent.
"""

from __future__ import annotations

from traceback import TracebackException
from types import TracebackType
from typing import Any

__all__ = ["MAX_TEXT_CHARS", "bounded", "exc_info_of", "summary_of", "traceback_of"]

#: So long may what an exception and its causes say be, as in the errors of a script.
MAX_TEXT_CHARS = 20_000

#: So many causes of one that cannot be shown as it is are shown.
MAX_CAUSES = 10

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def exc_info_of(error: BaseException) -> ExcInfo:
    """What to give to logging as `exc_info`: the error, or, if it cannot be shown as it is, one that looks like it."""
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
    """Its traceback, past what its class makes of its attributes."""
    found: TracebackType | None = _slot("__traceback__", error)
    return found


def summary_of(error: BaseException) -> str:
    """An exception's type and text, which is its author's code."""
    name, text = type(error).__name__, _text_of(error)
    return f"{name}, whose text cannot be had" if text is None else f"{name}: {text}"


def bounded(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """A text of at most so many characters; behind it, how many are left out."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"


def _slot(name: str, error: BaseException) -> Any:
    return getattr(BaseException, name).__get__(error)


def _text_of(error: BaseException) -> str | None:
    """None if it cannot be had."""
    try:
        text = str(error)
        return text if type(text) is str else str.__str__(text)
    except BaseException:
        return None


def _twin_of(error: BaseException) -> Exception:
    """An exception with the name, the place and the text of another, and its causes; nothing else."""
    first = last = _alone(error, left := MAX_TEXT_CHARS)
    seen = {id(error)}
    for _ in range(MAX_CAUSES):
        left -= len(str(last))
        cause, context = _slot("__cause__", error), _slot("__context__", error)
        is_hidden = cause is None and _slot("__suppress_context__", error)
        found = cause if cause is not None else context
        if found is None or is_hidden or id(found) in seen:
            break
        seen.add(id(found))
        twin = _alone(found, max(left, 200))
        if cause is not None:
            last.__cause__ = twin
        else:
            last.__context__ = twin
        error, last = found, twin
    return first


def _alone(error: BaseException, limit: int) -> Exception:
    kind, text = type(error), _text_of(error)
    names = {name: type.__getattribute__(kind, name) for name in ("__module__", "__qualname__")}
    shown = f"<{kind.__name__}, whose text cannot be had>" if text is None else bounded(text, limit)
    twin: Exception = type(kind.__name__, (Exception,), names)(shown)
    return twin.with_traceback(traceback_of(error))
