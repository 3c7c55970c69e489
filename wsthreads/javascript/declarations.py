"""Writes TypeScript declarations for Python files that scripts import.

Uses the annotations and docstrings of the functions.
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable
from keyword import iskeyword
from typing import Any, Literal, get_args, get_origin

from wsthreads.javascript.crossings import hints_of, may_cross
from wsthreads.javascript.python_functions import PythonFunction

__all__ = ["declarations_of"]

#: The TypeScript types for the types of JSON.
_SIMPLE = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    None: "null",
    type(None): "null",
    object: "unknown",
    dict: "Record<string, any>",
    list: "any[]",
    tuple: "any[]",
}

_BYTES = (bytes, bytearray, memoryview)

#: The TypeScript types of the objects that a script passes as handles, by the names of their classes in Python.
_HANDLES = {"Session": "Session", "Room": "Room", "SessionRoom": "SessionRoom", "User": "User", "Peer": "Peer"}

_SEQUENCES = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection, set, frozenset)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_GENERATORS = (collections.abc.Generator, collections.abc.Iterator, collections.abc.Iterable)

_HEAD = "// Written by `wsthreads check --types` from {source}. Changes here are lost.\n"


def declarations_of(source: str, functions: list[PythonFunction]) -> str:
    """The text of a ``.d.ts`` for the public functions of a Python file."""
    writer = _Writer()
    declared = [writer.function(function) for function in functions]
    imported = sorted(writer.handles)
    head = [f'import type {{ {", ".join(imported)} }} from "wsthreads";\n'] if imported else []
    return "\n".join([_HEAD.format(source=source), *head, *writer.interfaces.values(), *declared])


class _Writer:
    def __init__(self) -> None:
        self.handles: set[str] = set()
        self.interfaces: dict[str, str] = {}  # the interfaces of TypedDicts, by the name of the interface
        self._names: dict[Any, str] = {}  # the names of these interfaces, by TypedDict
        self._tuples: list[Any] = []  # the NamedTuples whose fields are being written now
        self._is_argument = False

    def function(self, function: PythonFunction) -> str:
        plain = inspect.unwrap(function.function)
        hints = hints_of(plain)
        try:
            parameters = list(inspect.signature(function.function).parameters.values())
        except (TypeError, ValueError):  # a built-in function without a signature
            return _declared(function.name, "(...args: any[]): Promise<any>")
        self._is_argument = True
        shown = [self._parameter(each, hints.get(each.name, Any)) for each in parameters if _is_positional(each)]
        self._is_argument = False
        result = hints.get("return", Any)
        returned = self._iterated(result) if function.is_generator else f"Promise<{self.type(result)}>"
        return _comment(plain) + _declared(function.name, f"({', '.join(shown)}): {returned}")

    def _parameter(self, parameter: inspect.Parameter, hint: Any) -> str:
        name = parameter.name if parameter.name.isascii() and parameter.name not in _RESERVED else f"{parameter.name}$"
        if parameter.kind is parameter.VAR_POSITIONAL:
            return f"...{name}: {_grouped(self.type(hint))}[]"
        optional = "" if parameter.default is parameter.empty else "?"
        return f"{name}{optional}: {self.type(hint)}"

    def _iterated(self, hint: Any) -> str:
        arguments = get_args(hint) if _is_one_of(get_origin(hint), _GENERATORS) else ()
        return f"AsyncIterableIterator<{self.type(arguments[0]) if arguments else 'any'}>"

    def type(self, hint: Any) -> str:
        """The TypeScript type for an annotation.

        ``any`` if it is unknown, ``never`` if a script cannot get such objects.
        """
        try:
            return self._type(hint)
        except Exception:  # raised by code of the user, such as a metaclass
            return "any"

    def _type(self, hint: Any) -> str:
        if hint is Any:  # in newer versions of Python, Any is a class
            return "any"
        if _is_one_of(hint, _BYTES):
            return "ArrayBuffer | ArrayBufferView" if self._is_argument else "Uint8Array"
        if _is_one_of(hint, _SIMPLE):
            return _SIMPLE[hint]
        if hint is typing.Tuple:  # noqa: UP006  # its arguments are those of tuple[()]
            return "any[]"
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Literal:
            return " | ".join(dict.fromkeys(map(self._literal, arguments))) or "never"
        if origin is typing.Union or origin is types.UnionType:
            return " | ".join(dict.fromkeys(self.type(argument) for argument in arguments))
        if origin is typing.Annotated:
            return self.type(arguments[0])
        kind = hint if origin is None else origin
        if not self._is_argument and isinstance(kind, type) and not typing.is_typeddict(kind) and not may_cross(kind):
            return "never"
        if origin is None and isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
            return self._named_tuple(hint)
        if origin is tuple:
            if len(arguments) == 2 and arguments[1] is ...:
                return f"{_grouped(self.type(arguments[0]))}[]"
            return f"[{', '.join(map(self.type, arguments))}]"
        if _is_one_of(origin, _MAPPINGS):
            return f"Record<string, {self.type(arguments[1]) if len(arguments) > 1 else 'any'}>"
        if _is_one_of(origin, _SEQUENCES):
            return f"{_grouped(self.type(arguments[0]))}[]" if arguments else "any[]"
        if typing.is_typeddict(hint):
            return self._interface(hint)
        name = getattr(hint, "__name__", "")
        if name in _HANDLES and str(getattr(hint, "__module__", "")).startswith("wsthreads"):
            self.handles.add(_HANDLES[name])
            return _HANDLES[name]
        return "any"

    def _named_tuple(self, hint: Any) -> str:
        if _is_one_of(hint, self._tuples):  # the tuple contains itself, but a tuple type has no name to refer to
            return "any[]"
        self._tuples.append(hint)
        hints = hints_of(hint)
        fields = [self.type(hints.get(field, Any)) for field in hint._fields]
        self._tuples.pop()
        return f"[{', '.join(fields)}]"

    def _literal(self, value: object) -> str:
        """The TypeScript literal for a value of a `Literal`.

        Only values of some JSON types have literals. Members of enums have none, so the result is the type of the
        member.
        """
        return json.dumps(value) if value is None or type(value) in (bool, int, str) else self.type(type(value))

    def _interface(self, hint: Any) -> str:
        name = self._names.get(hint)
        if name is None:
            name = "".join(each if f"_{each}".isidentifier() else "_" for each in str(hint.__name__))
            if not name.isidentifier():  # empty, or it begins with a digit
                name = f"_{name}"
            while name in self.interfaces or name in _TYPES or name in _RESERVED or iskeyword(name):
                name += "$"
            self._names[hint] = name
            self.interfaces[name] = ""  # the type may contain itself
            is_argument, self._is_argument = self._is_argument, False  # the type may be used for a result, too
            optional = hint.__optional_keys__
            hints = hints_of(hint) or dict.fromkeys(sorted(optional | hint.__required_keys__), Any)
            fields = [
                f"  {key if key.isidentifier() else json.dumps(key)}{'?' * (key in optional)}: {self.type(each)};\n"
                for key, each in hints.items()
            ]
            self._is_argument = is_argument
            self.interfaces[name] = f"export interface {name} {{\n{''.join(fields)}}}\n"
        return name


#: The types that declarations use, and the types that TypeScript defines itself.
_TYPES = frozenset(
    {
        *_HANDLES.values(),
        *("ArrayBuffer", "ArrayBufferView", "AsyncIterableIterator", "Promise", "Record", "Uint8Array"),
        *("any", "bigint", "boolean", "never", "number", "object", "string", "symbol", "undefined", "unknown"),
    }
)

#: Words that are valid names of parameters in Python, but reserved in JavaScript.
_RESERVED = frozenset(
    {
        "arguments",
        "await",
        "case",
        "catch",
        "const",
        "debugger",
        "default",
        "delete",
        "do",
        "enum",
        "eval",
        "export",
        "extends",
        "false",
        "function",
        "implements",
        "instanceof",
        "interface",
        "let",
        "new",
        "null",
        "package",
        "private",
        "protected",
        "public",
        "static",
        "super",
        "switch",
        "this",
        "throw",
        "true",
        "typeof",
        "var",
        "void",
    }
)


def _declared(name: str, signature: str) -> str:
    """The declaration of a function.

    If the name is a reserved word of JavaScript, the function is declared under another name, and exported under its
    own name. An import can then rename it.
    """
    if name not in _RESERVED:
        return f"export function {name}{signature};\n"
    return f"declare function {name}${signature};\nexport {{ {name}$ as {name} }};\n"


def _is_positional(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)


def _is_one_of(hint: Any, kinds: Iterable[Any]) -> bool:
    """Whether `hint` is one of these objects. Unlike `in`, this calls no `__eq__` or `__hash__` of a metaclass."""
    return any(hint is each for each in kinds)


def _grouped(type_: str) -> str:
    return f"({type_})" if " | " in type_ else type_


def _comment(function: Callable[..., Any]) -> str:
    text = inspect.getdoc(function)
    if not text:
        return ""
    lines = text.replace("*/", "* /").splitlines()
    if len(lines) == 1:
        return f"/** {lines[0]} */\n"
    return "/**\n" + "".join(f" * {line}".rstrip() + "\n" for line in lines) + " */\n"
