"""The formats of log lines: text for people, JSON for programs.

In both formats, data from a client cannot look like another log line, and cannot control the terminal that shows it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime, timezone
from itertools import chain, zip_longest
from math import isfinite
from textwrap import indent
from typing import IO, Any
from urllib.parse import unquote

from wsthreads.monitoring.failures import exc_info_of

__all__ = [
    "AccessFormatter",
    "JSONFormatter",
    "TextFormatter",
    "block",
    "escaped",
    "hide_secrets",
    "is_secret",
    "on_one_line",
    "plain",
    "quoted",
    "stack_of",
    "takes_colours",
    "with_context",
]

#: Matches the characters that `escaped` checks.
_SUSPECT = re.compile(r"[^\x20-\x7e\t\n]")

_SECRET = re.compile(
    r"token|key(?!word|board)|secret|pass(?:w|phrase|\Z)|pwd|\Apw\Z|\Apin\Z|psk|sess(?:ion|_?id|\Z)|(?<![a-z])sid\Z|auth(?!or(?!i[sz]))|jwt|signature|\Asig\Z|hmac"
    r"|credential|cookie|otp|ticket(?!s\Z|s?_?(?:id|no|nr|num))|[cx]srf|bearer|assertion|saml|nonce|code\Z",
    re.I,
)
# Match a parameter anywhere in a text: its name, and its value, up to a character that ends it on every server.
_NAME = re.compile(r"""(?<![^?&;#=\s"'(])([^?&;#=\s"'(]+)=""")
_VALUE = re.compile(r"[^&\s]*")
_PART = re.compile(r"[^&;#\s]*")
#: Match a name in a JSON value, and a user and a password before a host.
_JSON_NAME = re.compile(r'"([^"\\]{1,100})"\s*:')
_CREDENTIALS = re.compile(r'(?<=://)[^/?#\s"<>]*@')

#: Characters that do not belong to a URL if they come directly after it in a text.
_BEHIND = "\"')]>,"

#: URLs in parameters of other URLs are found even if they are percent-encoded this many times.
_TIMES_ENCODED = 3

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ACCESS_HEAD = re.compile(r"\A\S+ - \S+ \[[^\]]*\] ")

#: The length of a short session id. It is long enough to find the lines that contain the full id.
SHORT_ID_CHARS = 8

#: The attributes that every log record has. All others come from `extra` or from a filter.
_USUAL = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", "stack"})


def escaped(text: str) -> str:
    """Escape characters that control a terminal or disguise a text.

    Such characters are control characters, line ends other than the newline, marks that are invisible (U+200B) or
    change the direction of the text (U+202E), and lone surrogates.
    """
    return _SUSPECT.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable() or unicodedata.category(character) == "Zs":  # other spaces, such as U+2003
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def block(text: str) -> str:
    """Escape a text, and indent all lines except the first, so that no line looks like a new log line."""
    return re.sub(r"\n(?![ \t])", "\n  ", escaped(text))


def on_one_line(text: str) -> str:
    """Escape a text, including its newlines."""
    return escaped(text).replace("\n", "\\n")


def quoted(text: str) -> str:
    """Escape a client's text, and begin all lines except the first with a bar.

    So no line looks like a log line.
    """
    return escaped(text).replace("\n", "\n  | ")


def plain(text: str) -> str:
    """Remove terminal colours from a text."""
    return _COLOUR.sub("", text)


def is_secret(name: str) -> bool:
    """Whether the name of a parameter or header suggests a secret value, such as a token, a key or a password."""
    return _SECRET.search(name) is not None


def hide_secrets(text: str) -> str:
    """In a text with URLs or queries, replace the values of parameters whose names suggest a secret (`is_secret`).

    Also looks into values that are URLs, queries or JSON themselves, and replaces the user and the password before a
    host.
    """
    text = _CREDENTIALS.sub("***@", text)
    shown: list[str] = []
    end = decoded_to = 0
    for found in _NAME.finditer(text):
        start = found.end()
        if found.start() < end:
            continue
        if is_secret(unquote(found[1])):
            value = _rest(_VALUE, text, start)
        elif start > decoded_to:
            value = _rest(_PART, text, start)
            decoded_to = start + len(value)
            if ("%" not in value and '"' not in value) or not _has_secret(value):
                continue
        else:
            continue
        value = value.rstrip(_BEHIND)
        if value:
            shown += [text[end:start], "***"]
            end = start + len(value)
    return "".join([*shown, text[end:]])


def _rest(pattern: re.Pattern[str], text: str, start: int) -> str:
    found = pattern.match(text, start)
    return found[0] if found else ""


def _has_secret(encoded: str) -> bool:
    for _ in range(_TIMES_ENCODED):
        decoded = unquote(encoded)
        names = chain(_NAME.finditer(decoded), _JSON_NAME.finditer(decoded))
        if any(is_secret(unquote(found[1])) for found in names) or _CREDENTIALS.search(decoded):
            return True
        if decoded == encoded:
            break
        encoded = decoded
    return False


def takes_colours(stream: IO[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to write colours to `stream`.

    Only a terminal with colours gets them, unless NO_COLOR or FORCE_COLOR says otherwise.
    """
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return environment.get("TERM") != "dumb" and stream.isatty()


def with_context(record: logging.LogRecord) -> str:
    """Returns the escaped message of a log record.

    The session, the endpoint and the address are added to the first line, unless the message contains them.
    """
    message = block(record.getMessage())
    first, newline, rest = message.partition("\n")
    return first + _context_of(record, message) + newline + rest


def _context_of(record: logging.LogRecord, message: str) -> str:
    told = []
    for name in ("session", "endpoint", "address"):
        value = escaped(str(getattr(record, name, "")))
        if value and value not in message:
            told.append(value[:SHORT_ID_CHARS] if name == "session" else value)
    return f" [{' '.join(told)}]" if told else ""


_LEVEL_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


def stack_of(exc_info: Any) -> str:
    """Returns an exception with its stack, as logging shows it, even if formatting the exception raises an error."""
    try:
        return logging.Formatter().formatException(exc_info)
    except BaseException:
        return logging.Formatter().formatException(exc_info_of(exc_info[1]))


class TextFormatter(logging.Formatter):
    """Writes lines for people: time of day, level, logger, message, session, endpoint and address."""

    def __init__(self, colours: bool = False) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._colours = colours

    def formatException(self, ei: Any) -> str:
        """Returns the traceback, indented, because the text of the exception at its end can contain anything."""
        return indent(escaped(stack_of(ei)), "  ")

    def format(self, record: logging.LogRecord) -> str:
        name = escaped(record.name.removeprefix("wsthreads.script."))
        time, level = self.formatTime(record, self.datefmt), record.levelname
        if self._colours:
            time, level = f"\x1b[2m{time}\x1b[0m", f"\x1b[{_LEVEL_COLOURS.get(level, '32')}m{level}\x1b[0m"
        lines = [f"{time} {level} {name}: {with_context(record)}"]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        if record.stack_info:
            lines.append(indent(escaped(record.stack_info), "  "))
        return "\n".join(lines)


class AccessFormatter(logging.Formatter):
    """The format of Werkzeug's access lines, which contain a time and colours already. Hides secrets in URLs."""

    def __init__(self, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        line = hide_secrets(record.getMessage().rstrip("\n"))
        colours = _COLOUR.findall(line) if self._colours else []
        return "".join(chain.from_iterable(zip_longest(map(on_one_line, _COLOUR.split(line)), colours, fillvalue="")))


class JSONFormatter(logging.Formatter):
    """Writes each log record as one JSON object in ASCII, on one line.

    Every object has `time` (ISO 8601, UTC), `level`, `logger`, `message` and `pid`. Where it makes sense, an object
    also has `session`, `endpoint` and `address`, the `file`, `line` and `column` of a script, `exception` (the stack),
    and the `method`, `path` and `status` of a request. Text, numbers and booleans from `extra` are added.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().rstrip("\n")
        stack = getattr(record, "stack", None)
        if stack and isinstance(stack, str):
            message = message.removesuffix(f"\n{stack}")
        else:
            stack = stack_of(record.exc_info) if record.exc_info else None
        # a line of an access log, for which other fields have the content of its first part
        if hasattr(record, "status"):
            message = hide_secrets(plain(_ACCESS_HEAD.sub("", message)))
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        fields: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            "pid": record.process,
        }
        for name, value in record.__dict__.items():
            if name not in _USUAL and name not in fields and isinstance(value, (str, bool, int, float)):
                fields[name] = str(value) if isinstance(value, float) and not isfinite(value) else value
        if stack or record.stack_info:
            fields["exception"] = "\n".join(filter(None, (stack, record.stack_info)))
        return json.dumps(fields)
