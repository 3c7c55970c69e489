"""Hides the values of a script's `env` in the texts that others see: in the log, in errors, and on the dashboard.

docs/reference/scripts.rst has the rule. A value is replaced by `***`, in each *form* in which texts can contain it
(`_forms`): as it is, as JSON, as part of a URL, and so on. If a form has 16 characters or more, pieces of it are
hidden, too. Short values are not hidden, because texts contain them by chance.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, quote_plus

from wsthreads.errors import IsolateError, ScriptError, UsageError
from wsthreads.loggers import ContainedLogger, get_logger
from wsthreads.monitoring.formats import block, quoted, stack_of

__all__ = ["Mask"]

MASK = "***"

#: Shorter values are not hidden. For a single line of a value with several lines, `MIN_LINE_CHARS` is the limit.
MIN_CHARS = 6
MIN_LINE_CHARS = 16

#: If a form has this many characters or more, its pieces are hidden, too. A hidden piece has half the length of the
#: form.
LONG_CHARS = 16
#: The length of a hidden piece of a very long form.
MAX_PIECE_CHARS = 32

#: Matches the beginning of a URL, up to its path, if it has no password. This beginning alone is not hidden, because
#: texts contain it for other reasons, too. A URL with an @ may have a password: some libraries allow a slash in
#: passwords.
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]*(?=[/?#]|\Z)(?!.*@)", re.DOTALL)

#: The characters that are encoded in a part of a URL, besides controls and characters beyond ASCII
#: (https://url.spec.whatwg.org). One text for each part: fragment, query, query of a special scheme, path, user and
#: password, component. `_ENCODED_IN_FORMS` is the same for an HTML form.
_QUERY = " \"#<>"
_PATH = _QUERY + "?^`{}"
_USER = _PATH + "/:;=@[\\]|"
_ENCODED_IN_URLS = (" \"<>`", _QUERY, _QUERY + "'", _PATH, _USER, _USER + "$%&+,")
_ENCODED_IN_FORMS = _USER + "$%&+,!'()~"

#: The escapes that the console of scripts writes.
_ESCAPES = {
    **{code: f"\\x{code:02X}" for code in (*range(32), *range(127, 160))},
    **{code: f"\\u{code:x}" for code in range(0xD800, 0xE000)},
    **str.maketrans({"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", "\\": "\\\\"}),
}


#: Matches where the console of scripts breaks a text with several lines.
_JOINT = re.compile(r"""['"`] \+\n[ |]*['"`]""")


class Mask:
    """A function that returns a text in which `values` are hidden. Any thread.

    The time is proportional to the length of the text, whatever the text and the values are.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = {form for value in values for part in _parts(value) for form in _forms(part)}
        #: The texts to hide.
        self._pieces = {piece for form in forms for piece in _pieces(form)}
        self._head_chars = min(map(len, self._pieces), default=0)
        #: The lengths of pieces, the longest first. The key is the beginning of these pieces. A long value has very
        #: many pieces, so equal tuples are one object.
        self._lengths: dict[str, tuple[int, ...]] = {}
        shared: dict[tuple[int, ...], tuple[int, ...]] = {}
        for piece in self._pieces:
            head = piece[: self._head_chars]
            known = self._lengths.get(head, ())
            if len(piece) not in known:
                lengths = tuple(sorted((*known, len(piece)), reverse=True))
                self._lengths[head] = shared.setdefault(lengths, lengths)

    def __call__(self, text: str) -> str:
        if not self._pieces:
            return text
        joined = _JOINT.sub("", text)
        if joined != text and any(self._found(joined)):
            text = joined
        shown: list[str] = []
        end = 0
        for start, stop in self._found(text):
            if start > end or not shown:
                shown += (text[end:start], MASK)
            end = max(end, stop)
        return "".join((*shown, text[end:]))

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        """The begin and the end of each piece in a text: the longest piece at each place. Pieces may overlap."""
        chars, lengths, pieces = self._head_chars, self._lengths, self._pieces
        places = [place for place in range(len(text) - chars + 1) if text[place : place + chars] in lengths]
        for place in places:
            for length in lengths[text[place : place + chars]]:
                if text[place : place + length] in pieces:
                    yield place, place + length
                    break

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """In this context, errors about the script are raised without the values."""
        try:
            yield
        except (UsageError, IsolateError) as error:
            error.args = tuple(self(part) if isinstance(part, str) else part for part in error.args)
            if isinstance(error, ScriptError):
                error.message = self(error.message)
            raise

    def logger(self, name: str) -> ContainedLogger:
        """Like `get_logger`, but the log records of this logger do not show the values."""
        return _MaskedLogger(logging.getLogger(name), self) if self._pieces else get_logger(name)


class _MaskedLogger(ContainedLogger):
    """Writes an exception as text below the message. If `extra` has a `stack`, the message ends with this stack."""

    __slots__ = ("_mask",)

    def __init__(self, logger: logging.Logger, mask: Mask) -> None:
        super().__init__(logger)
        self._mask = mask

    def _prepared(
        self, message: str, values: tuple[object, ...], exc_info: Any, extra: dict[str, Any] | None
    ) -> tuple[str, tuple[object, ...], Any, dict[str, Any] | None]:
        text = self._mask(message % values if values else message)
        if exc_info:
            stack = self._mask(stack_of(exc_info))
            text, extra = f"{text}\n{stack}", {**(extra or {}), "stack": stack}
        elif extra and "stack" in extra:
            extra = {**extra, "stack": self._mask(extra["stack"])}
        return "%s", (text,), None, extra


def _parts(value: str) -> set[str]:
    """The value, the value without spaces and line ends around it, and those of its lines that are long enough."""
    if len(value) < MIN_CHARS:
        return set()
    lines = {line for line in value.splitlines() if len(line) >= MIN_LINE_CHARS}
    return {value, *lines, *({value.strip()} if len(value.strip()) >= MIN_CHARS else ())}


def _pieces(form: str) -> Iterator[str]:
    """Yield the pieces of a form that are hidden.

    A directory's path has no such pieces, and neither has the beginning of a URL: texts contain these for other
    reasons.
    """
    origin = _ORIGIN.match(form)
    begin = 0 if origin is None else origin.end()
    if len(form) - begin < LONG_CHARS or (os.path.isabs(form) and os.path.isdir(form)):
        yield form
        return
    length = min(MAX_PIECE_CHARS, (len(form) - begin + 1) // 2)
    if begin:
        yield form[: begin + length]
    for start in range(begin, len(form) - length + 1):
        yield form[start : start + length]


def _forms(value: str) -> set[str]:
    """The value as it is, as Python, JSON, the console and URLs write it, and as logs show several lines."""
    data = value.encode(errors="surrogatepass")
    in_python = {repr(value)[1:-1], repr("'\"" + value)[4:-1], ascii(value)[1:-1], repr(data)[2:-1]}
    in_json = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    escaped = value.translate(_ESCAPES)
    in_console = {escaped, escaped.replace("'", "\\'")}
    in_url = {quote(data, safe=safe) for safe in ("", "/", "!*'()", "!*'();/?:@&=+$,#")} | {quote_plus(data)}
    in_url |= {_percent_encoded(data, chars) for chars in _ENCODED_IN_URLS}
    in_url.add(_percent_encoded(data, _ENCODED_IN_FORMS).replace("%20", "+"))
    return {value, quoted(value), block(value)} | in_python | in_json | in_console | in_url


def _percent_encoded(data: bytes, chars: str) -> str:
    """Encode these characters, as https://url.spec.whatwg.org encodes a part of a URL."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in chars else f"%{byte:02X}" for byte in data)
