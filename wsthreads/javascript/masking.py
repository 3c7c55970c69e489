"""Hides the values of a script's `env` in the texts that leave the script: in its log, its errors, and on the page.

docs/reference/scripts.rst has the rule. A value becomes `***`, in each form in which texts can contain it (`_forms`).
Pieces of a form with 16 characters or more are hidden, too. Short values are shown, because texts contain them by
chance.
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

#: Shorter values are not hidden. The same is true for lines of a value with several lines.
MIN_CHARS = 6
MIN_LINE_CHARS = 16

#: If a form has this length or more, its pieces are hidden, too. A hidden piece has half the length of the form.
LONG_CHARS = 16
#: The length of a hidden piece of a very long form.
MAX_PIECE_CHARS = 32

#: Matches the part of a URL before its path, without a password. This part alone is not hidden: texts contain it for
#: other reasons, too. A URL with an @ may have a password: some libraries allow a slash in it.
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]*(?=[/?#]|\Z)(?!.*@)", re.DOTALL)

#: The characters that a part of a URL encodes, besides controls and those beyond ASCII (https://url.spec.whatwg.org).
#: One text for each part: fragment, query, query of a special scheme, path, user and password, component. Below, the
#: same for an HTML form.
_QUERY = " \"#<>"
_PATH = _QUERY + "?^`{}"
_USER = _PATH + "/:;=@[\\]|"
_ENCODED_IN_URLS = (" \"<>`", _QUERY, _QUERY + "'", _PATH, _USER, _USER + "$%&+,")
_ENCODED_IN_FORMS = _USER + "$%&+,!'()~"

#: The escapes of the console of scripts.
_ESCAPES = {
    **{code: f"\\x{code:02X}" for code in (*range(32), *range(127, 160))},
    **{code: f"\\u{code:x}" for code in range(0xD800, 0xE000)},
    **str.maketrans({"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", "\\": "\\\\"}),
}


#: Where the console of scripts continues a text with several lines.
_JOINT = re.compile(r"""['"`] \+\n[ |]*['"`]""")


class Mask:
    """A function that returns a text without `values`. Any thread.

    The time is proportional to the length of the text, for all texts and values.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = {form for value in values for part in _parts(value) for form in _forms(part)}
        #: The texts to hide.
        self._pieces = {piece for form in forms for piece in _pieces(form)}
        self._head_chars = min(map(len, self._pieces), default=0)
        #: The lengths of pieces, longest first, by the pieces' first characters. A long value has very many pieces, so
        #: equal tuples are the same object.
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
        """The begin and end of each piece in a text: the longest one at each place. They may overlap."""
        chars, lengths, pieces = self._head_chars, self._lengths, self._pieces
        places = [place for place in range(len(text) - chars + 1) if text[place : place + chars] in lengths]
        for place in places:
            for length in lengths[text[place : place + chars]]:
                if text[place : place + length] in pieces:
                    yield place, place + length
                    break

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """A context: errors about the script that are raised in it show no value."""
        try:
            yield
        except (UsageError, IsolateError) as error:
            error.args = tuple(self(part) if isinstance(part, str) else part for part in error.args)
            if isinstance(error, ScriptError):
                error.message = self(error.message)
            raise

    def logger(self, name: str) -> ContainedLogger:
        """Like `get_logger`, but the logger's records show no value."""
        return _MaskedLogger(logging.getLogger(name), self) if self._pieces else get_logger(name)


class _MaskedLogger(ContainedLogger):
    """Writes an exception as text below the message. If `extra` has a `stack`, the message ends with it."""

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
    """The value, the value without surrounding spaces and line ends, and its longer lines."""
    if len(value) < MIN_CHARS:
        return set()
    lines = {line for line in value.splitlines() if len(line) >= MIN_LINE_CHARS}
    return {value, *lines, *({value.strip()} if len(value.strip()) >= MIN_CHARS else ())}


def _pieces(form: str) -> Iterator[str]:
    """The pieces of a form that are hidden.

    A directory's path has no such pieces, nor has the beginning of a URL, because texts contain these anyway.
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
    """The value as it is; as Python, JSON, the console and URLs write it; and as logs show a text of several lines."""
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
    """As https://url.spec.whatwg.org writes a part of a URL, in which these characters are encoded."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in chars else f"%{byte:02X}" for byte in data)
