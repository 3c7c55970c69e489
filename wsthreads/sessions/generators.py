"""Functions of Python whose call runs nothing of their body: generators, async generators, coroutines.

As a handler's function, such a one is a mistake. Of most it can be told before they are called. Behind a decorator only
what a call returns tells.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import AsyncGeneratorType, CodeType, CoroutineType, FunctionType, GeneratorType
from typing import Any, NamedTuple

__all__ = ["Place", "kind_of", "returned", "unwrapped"]


class Place(NamedTuple):
    """Where a function is written."""

    file: str
    line: int

    @classmethod
    def of(cls, code: CodeType) -> Place:
        return cls(code.co_filename, code.co_firstlineno)


def kind_of(function: Callable[..., Any]) -> str | None:
    """What a function is whose call runs nothing; None for any other one.

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
    """What is called in the end: of a partial its function, of a method that, of an object its class's `__call__`.

    Not what `functools.wraps` names: a decorator may well run what it wraps.
    """
    while True:
        if isinstance(function, partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        else:
            break
    if not isinstance(function, (FunctionType, type)):
        call = getattr(type(function), "__call__", None)  # noqa: B004, it is that itself which is wanted
        if isinstance(call, FunctionType):
            return call
    return function


def returned(result: object) -> tuple[str, Place] | None:
    """What a call has returned whose body has not run, and where that is written; None for anything else.

    A generator or a coroutine is closed: so Python does not warn that nobody has awaited it.
    """
    if isinstance(result, GeneratorType):
        kind, code, is_new = "a generator", result.gi_code, inspect.getgeneratorstate(result) == inspect.GEN_CREATED
    elif isinstance(result, CoroutineType):
        kind, code, is_new = "a coroutine", result.cr_code, inspect.getcoroutinestate(result) == inspect.CORO_CREATED
    elif isinstance(result, AsyncGeneratorType):
        return "an async generator", Place.of(result.ag_code)
    else:
        return None
    if not is_new:  # somebody runs it
        return None
    result.close()
    return kind, Place.of(code)
