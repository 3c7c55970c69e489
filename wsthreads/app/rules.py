"""Paths with parameters, such as ``/ws/rooms/<name>``: the rules of werkzeug, without its redirects.

A *rule* is such a path. A WebSocket client cannot follow a redirect. So a path matches a rule exactly, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isfinite
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

from wsthreads.errors import ConfigError

if TYPE_CHECKING:
    from werkzeug.routing.map import MapAdapter

__all__ = ["Rule", "Rules", "example_of", "is_rule", "without_parameters"]

#: Matches a parameter of a rule, as werkzeug writes it: ``<name>``, ``<converter:name>``,
#: ``<converter(arguments):name>``.
_PARAMETER = re.compile(
    r"<(?:(?P<converter>[a-zA-Z_][a-zA-Z0-9_]*)(?:\((?P<arguments>.*?)\))?:)?(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)>"
)

#: Example values for converters whose values are not any text.
_EXAMPLES = {"int": "1", "float": "1.5", "uuid": "123e4567-e89b-12d3-a456-426614174000"}

_SLASHES = re.compile("/+")

#: Longer paths get no hint. The limit bounds the work for a rule that has several parameters with the converter
#: ``path``.
MAX_HINT_CHARS = 500


def is_rule(path: str) -> bool:
    """Whether a path has parameters."""
    return "<" in path


def without_parameters(path: str) -> str:
    """Returns the parts of a path that are not parameters."""
    return _PARAMETER.sub("", path)


def example_of(path: str) -> str:
    """Returns an example of a path that matches the rule, for texts that need a path without parameters."""
    return _PARAMETER.sub(lambda parameter: _EXAMPLES.get(parameter["converter"], parameter["name"]), path)


class Rule:
    """One path with parameters. Raises `ConfigError`, which shows the path, if werkzeug does not accept the path."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._parameters = list(_PARAMETER.finditer(text))
        names = [parameter["name"] for parameter in self._parameters]
        if len(set(names)) < len(names):
            raise ConfigError(f"a path of an endpoint must not have two parameters of the same name: {text!r:.200}")
        try:
            _bound([text])
            for parameter in self._parameters:
                _fits(parameter, "1")  # compiles the pattern for limits such as minlength and maxlength
        except (LookupError, TypeError, ValueError, re.error) as error:
            why = " ".join(str(error).split())  # the text of a KeyError is in quotes
            raise ConfigError(f"the path of an endpoint is not a rule of werkzeug, {text!r:.200}: {why}") from error
        #: Two rules with the same shape match the same paths.
        self.shape = _PARAMETER.sub(_shape_of, text)
        self._loose = re.compile(self._loose_pattern(), re.IGNORECASE | re.DOTALL)

    def _loose_pattern(self) -> str:
        """Returns a pattern for paths that resemble the rule. The paths have no double slashes.

        Upper case and the last slash may differ, and the values of parameters may be invalid.
        """
        pattern, start = "", 0
        for parameter in self._parameters:
            value = ".*?"
            # the value ends at the rule's next character, which makes the match fast
            if parameter["converter"] != "path":
                follows = self.text[parameter.end() : parameter.end() + 1]
                value = f"[^/{re.escape(follows)}]*" if follows not in ("", "/", "<") else "[^/]*"
            pattern += _loosened(self.text[start : parameter.start()]) + f"(?P<{parameter['name']}>{value})"
            start = parameter.end()
        return pattern + _loosened(self.text[start:]).removesuffix("/") + r"/?\Z"

    def values(self, path: str) -> dict[str, str] | None:
        """Returns the parts of a path that are probably meant as values of the parameters.

        Returns None if the path does not resemble the rule.
        """
        found = self._loose.match(path)
        return None if found is None else found.groupdict()

    def filled(self, values: dict[str, str]) -> str:
        """Returns the path with these values of the parameters."""
        return _PARAMETER.sub(lambda parameter: values[parameter["name"]], self.text)

    def misfit(self, values: dict[str, str]) -> str:
        """Returns the text of an error for the first value that its parameter does not allow.

        Empty if all are allowed.
        """
        for parameter in self._parameters:
            value = values[parameter["name"]]
            if not _fits(parameter, value):
                return f"{value!r:.80} is not {parameter[0]} of {self.text}"
        return ""


class Rules:
    """The rules of one app. Any thread may read them. Only one thread at a time may change them."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._adapter: MapAdapter | None = None  # None while there is no rule

    def same_as(self, rule: Rule) -> str | None:
        """Returns the text of a rule that matches the same paths, or None."""
        return next((other.text for other in self._rules.values() if other.shape == rule.shape), None)

    def add(self, rule: Rule) -> None:
        """Add a rule for which `same_as` finds no other."""
        self._change({**self._rules, rule.text: rule})

    def remove(self, text: str) -> None:
        """Remove the rule with this text, if there is one."""
        self._change({other: rule for other, rule in self._rules.items() if other != text})

    def _change(self, rules: dict[str, Rule]) -> None:
        self._rules = rules
        self._adapter = _bound(rules) if rules else None

    def match(self, path: str) -> tuple[str, dict[str, Any]] | None:
        """Returns the text of the rule that matches a path, and the values of its parameters.

        Returns None if no rule matches.
        """
        return None if self._adapter is None else _match(self._adapter, path)

    def near(self, path: str) -> str:
        """Returns a path that is probably meant.

        The path matches a rule, and differs from `path` only in slashes, upper case or an encoded query. Empty if there
        is none.
        """
        meant = (rule.filled(values) for rule, values in self._loosely(path))
        return next((near for near in meant if self.match(near) is not None), "")

    def misfit(self, path: str) -> str:
        """Returns the text of an error for a path that resembles a rule, but has an invalid value.

        Empty for other paths.
        """
        return next((said for rule, values in self._loosely(path) if (said := rule.misfit(values))), "")

    def _loosely(self, path: str) -> Iterable[tuple[Rule, dict[str, str]]]:
        if len(path) > MAX_HINT_CHARS:
            return
        path = _SLASHES.sub("/", path.partition("?")[0].strip())
        for rule in self._rules.values():
            values = rule.values(path)
            if values is not None:
                yield rule, values


def _bound(rules: Iterable[str]) -> MapAdapter:
    from werkzeug.routing import Map, Rule  # only an app that has rules needs it

    made = Map((Rule(text, endpoint=text) for text in rules), merge_slashes=False, redirect_defaults=False)
    made.update()  # sort the rules now, not at the first request
    return made.bind("localhost")


def _match(adapter: MapAdapter, path: str) -> tuple[str, dict[str, Any]] | None:
    if path[:1] != "/" or path[1:2] == "/":  # werkzeug would ignore this difference
        return None
    try:
        text, parameters = adapter.match(path)
    except HTTPException:  # no rule matches, or only with one more slash, for which werkzeug would redirect
        return None
    except ValueError:  # an int with thousands of digits, which werkzeug 3.0 does not refuse
        return None
    if any(isinstance(value, float) and not isfinite(value) for value in parameters.values()):
        return None  # a number that is too large for JSON
    return text, dict(parameters)


def _fits(parameter: re.Match[str], value: str) -> bool:
    """Whether the parameter allows a text as its value."""
    return _match(_bound([f"/{parameter[0]}"]), f"/{value}") is not None


def _shape_of(parameter: re.Match[str]) -> str:
    converter = parameter["converter"] or "default"
    arguments = "".join((parameter["arguments"] or "").split())
    return f"<{'default' if converter == 'string' else converter}({arguments}):>"


def _loosened(text: str) -> str:
    """Returns a pattern for a part of a rule that is not a parameter."""
    return re.escape(_SLASHES.sub("/", text))
