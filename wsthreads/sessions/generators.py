"""Detects generator functions, async functions and async generator functions.

A call of such a function does not run its body.

A handler function of these kinds is a mistake. Most of them are detected before a call. If a decorator hides the
function, only the return value of a call shows the mistake.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import AsyncGeneratorType, CodeType, CoroutineType, FunctionType, GeneratorType
from typing import Any, NamedTuple

__all__ = ["Place", "kind_of", "returned", "unwrapped"]


class Place(NamedTuple):
    """Where a function is defined."""

    file: str
    line: int

    @classmethod
    def of(cls, code: CodeType) -> Place:
        return cls(code.co_filename, code.co_firstlineno)


def kind_of(function: Callable[..., Any]) -> str | None:
    """The kind of a function whose call does not run its body. None for any other function.

    >>> async def f(): yield
    >>> kind_of(partial(f)), kind_of(print)
    ('an async generator function', None)
    """
    function = unwrapped(function)
    if inspect.isasyncgenfunction(function):
        return "an async generator function"
    if inspect.iscoroutinefunction(function):
        return "an async function"
    return "a generator function" if inspect.isgeneratorfunction(function) else None


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside of a partial or a method. For an object, the `__call__` of its class.

    Does not follow `functools.wraps`, because a decorator may run the wrapped function.
    """
    while True:
        if isinstance(function, partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        else:
            break
    if not isinstance(function, (FunctionType, type)):
        call = getattr(type(function), "__call__", None)  # noqa: B004, the method itself is needed
        if isinstance(call, FunctionType):
            return call
    return function


def returned(result: object) -> tuple[str, Place] | None:
    """The kind and the place of a generator or coroutine that a call has returned, and that has not begun to run.

    Returns None for any other result. Closes the generator or coroutine, so that Python does not warn that it was never
    awaited.
    """
    if isinstance(result, GeneratorType):
        kind, code, is_new = "a generator", result.gi_code, inspect.getgeneratorstate(result) == inspect.GEN_CREATED
    elif isinstance(result, CoroutineType):
        kind, code, is_new = "a coroutine", result.cr_code, inspect.getcoroutinestate(result) == inspect.CORO_CREATED
    elif isinstance(result, AsyncGeneratorType):
        return "an async generator", Place.of(result.ag_code)
    else:
        return None
    if not is_new:  # the generator has begun to run, so other code runs it
        return None
    result.close()
    return kind, Place.of(code)
