"""The names and values that a script imports as `env`.

All values are secrets: no log line and no page of wsthreads shows them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from wsthreads.errors import ConfigError, UsageError
from wsthreads.javascript.masking import Mask

__all__ = ["Environment", "read_env_file"]

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_LINE = r"(?:export[ \t]+)?(?P<name>[^=\s]+)[ \t]*=[ \t]*(?P<value>.*)"
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


class Environment(Mapping[str, str]):
    """A mapping of names to texts, whose `repr` shows no value.

    Raises `ConfigError` for an invalid name or a value that is not text.
    """

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        if values is not None and not isinstance(values, Mapping):
            raise ConfigError(f"env must be a dict of names and texts, not {type(values).__name__}")
        self._values = dict(values or {})
        for name, value in self._values.items():
            if not isinstance(name, str) or re.fullmatch(_NAME, name) is None:
                raise ConfigError(f"env has a name that is not made of letters, digits and _: {name!r:.100}")
            if not isinstance(value, str):
                raise ConfigError(f"env[{name!r}] must be text, not {type(value).__name__}")
        #: Hides the values when they appear in texts.
        self.mask = Mask(self._values.values())

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Environment of {', '.join(self._values) or 'nothing'}>"


def read_env_file(path: str | os.PathLike[str]) -> dict[str, str]:
    r"""The names and values in a file of lines ``NAME=value``.

    A line may begin with ``export``. Empty lines and comments after ``#`` are skipped. A value may be in single quotes;
    it is then taken literally. It may be in double quotes, with the escapes ``\n``, ``\t``, ``\"`` and ``\\``. A quoted
    value ends at the closing quote, in the same line or in a later one. ``$NAME`` is not replaced. Of several lines
    with the same name, the last one counts.

    Raises `UsageError`. Its text has the line's number, but no value.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise UsageError(f"{os.fspath(path)}: {error.strerror or 'it cannot be read'}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{os.fspath(path)}: it is not UTF-8") from None
    values = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        place = f"{os.fspath(path)}:{number}"
        found = re.fullmatch(_LINE, line)
        if found is None or re.fullmatch(_NAME, found["name"]) is None:
            raise UsageError(f"{place}: this line is not NAME=value, with a name of letters, digits and _")
        value = found["value"]
        if value[:1] in ("'", '"', "`") and value:
            values[found["name"]] = _quoted(value, lines, place)
        else:
            values[found["name"]] = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
    return values


def _quoted(text: str, lines: Iterator[tuple[int, str]], place: str) -> str:
    """The value that begins with the quote in `text`. It may continue in further lines."""
    quote, text = text[0], text[1:]
    pattern = re.compile(r'((?:[^"\\]|\\.)*)"(.*)' if quote == '"' else f"([^{quote}]*){quote}(.*)", re.DOTALL)
    while (found := pattern.fullmatch(text)) is None:
        _, more = next(lines, (0, None))
        if more is None:
            raise UsageError(f"{place}: the value has no closing {quote}")
        text += "\n" + more
    value, rest = found[1], found[2].strip()
    if rest and not rest.startswith("#"):
        raise UsageError(f"{place}: there is text after the closing {quote}")
    return value if quote != '"' else re.sub(r"\\(.)", lambda one: _ESCAPES.get(one[1], one[0]), value, flags=re.DOTALL)
