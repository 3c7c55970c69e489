"""Finds parameters and results of Python functions that a script cannot pass or receive. For ``wsthreads check``.

A value *crosses* if it can go from Python to a script or back: JSON values and bytes can.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args, get_origin

from wsthreads.javascript.python_functions import PythonFunction

__all__ = ["hints_of", "may_cross", "remarks_on_functions"]

#: The types of JSON, and bytes. Objects of their subclasses cross, too, such as those of a NamedTuple or a StrEnum.
_CROSSES = (bool, int, float, str, list, tuple, dict, bytes, bytearray, memoryview, type(None))


def remarks_on_functions(path: str, functions: Iterable[PythonFunction]) -> Iterator[str]:
    """Remarks on the annotations of the functions that a script imports. Each remark begins with ``path:line:``."""
    for function in functions:
        plain = inspect.unwrap(function.function)
        code = getattr(plain, "__code__", None)
        place = path if code is None else f"{path}:{code.co_firstlineno}"
        for remark in (*_on_parameters(function), *_on_result(function, plain)):
            yield f"{place}: {remark}"


def _on_parameters(function: PythonFunction) -> Iterator[str]:
    try:
        parameters = inspect.signature(function.function).parameters.values()
    except (TypeError, ValueError):  # a built-in function without a signature
        return
    for each in parameters:
        if each.kind is not each.KEYWORD_ONLY:
            continue
        if each.default is each.empty:
            yield f"{function.name} cannot be called by a script: its parameter {each.name} is keyword-only"
        else:
            yield f"a script cannot pass {each.name} to {function.name}: it is keyword-only"


def _on_result(function: PythonFunction, plain: Callable[..., Any]) -> Iterator[str]:
    hint = hints_of(plain).get("return", Any)
    verb = "returns"
    if function.is_generator:
        verb, arguments = "yields", get_args(hint)
        hint = arguments[0] if arguments else Any
    try:
        stranger = _stranger_in(hint)
    except Exception:  # raised by code of the user, such as a metaclass
        return
    if stranger is not None:
        yield f"{function.name} {verb} {stranger}, which a script cannot have: use JSON values or bytes"


def _stranger_in(hint: Any) -> str | None:
    """The name of the first type in an annotation whose objects can never cross. None if there is no such type."""
    waiting = [hint]
    seen: list[Any] = []
    while waiting:
        each = waiting.pop(0)
        if each is Any or any(each is other for other in seen):  # a TypedDict may contain itself
            continue
        seen.append(each)
        origin = get_origin(each)
        if typing.is_typeddict(each):
            waiting += hints_of(each).values()
        elif origin is typing.Annotated:
            waiting.append(get_args(each)[0])
        elif origin is typing.Union or origin is types.UnionType:
            waiting += get_args(each)
        elif isinstance(origin, type):
            if not may_cross(origin):
                return origin.__name__
            waiting += [argument for argument in get_args(each) if argument is not ...]
        elif isinstance(each, type) and not may_cross(each):
            return each.__name__
    return None


def hints_of(owner: Any) -> dict[str, Any]:
    """The annotations of a function or class.

    Empty if one of them has a name that only type checkers know.
    """
    try:
        return typing.get_type_hints(owner)
    except Exception:  # annotations may run code of the user
        return {}


def may_cross(kind: type) -> bool:
    """Whether some objects of this class can cross to a script."""
    try:
        return issubclass(kind, _CROSSES) or any(issubclass(each, kind) for each in _CROSSES)
    except TypeError:  # a protocol that is not `runtime_checkable`
        return True
