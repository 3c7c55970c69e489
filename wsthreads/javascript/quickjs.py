"""The part of QuickJS's C API that wsthreads uses, by ctypes.

The library is a `ctypes.PyDLL`, so the GIL is held during every call. The engine calls Python through dukpy's code,
which needs the GIL. With `ctypes.CDLL`, this would crash.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    PYFUNCTYPE,
    Structure,
    c_bool,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from typing import Any

__all__ = [
    "UNDEFINED",
    "EngineUnsupported",
    "InterruptHandler",
    "RejectionTracker",
    "Value",
    "bridge_addresses",
    "library",
    "pointers",
]

_CAPSULE_NAME = b"DUKPY_CONTEXT_CAPSULE"
_TAG_EXCEPTION = 6


class EngineUnsupported(Exception):
    """dukpy's engine cannot be loaded, or its layout is not the one that this module expects."""


class Value(Structure):
    """A JSValue on platforms with 64-bit pointers. It has a union of 8 bytes, and a tag."""

    _fields_ = [("bits", c_uint64), ("tag", c_uint64)]

    @property
    def is_exception(self) -> bool:
        return bool((self.tag & 0xFFFFFFFF) == _TAG_EXCEPTION)


UNDEFINED = Value(0, 3)

InterruptHandler = CFUNCTYPE(c_int, c_void_p, c_void_p)
RejectionTracker = CFUNCTYPE(None, c_void_p, Value, Value, c_bool, c_void_p)

_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "JS_GetRuntime": (c_void_p, [c_void_p]),
    "JS_SetInterruptHandler": (None, [c_void_p, InterruptHandler, c_void_p]),
    "JS_SetHostPromiseRejectionTracker": (None, [c_void_p, RejectionTracker, c_void_p]),
    "JS_IsJobPending": (c_bool, [c_void_p]),
    "JS_ExecutePendingJob": (c_int, [c_void_p, POINTER(c_void_p)]),
    "JS_UpdateStackTop": (None, [c_void_p]),
    "js_malloc_usable_size": (c_size_t, [c_void_p, c_void_p]),
    "JS_RunGC": (None, [c_void_p]),
    "JS_ComputeMemoryUsage": (None, [c_void_p, POINTER(c_int64)]),
    "JS_Eval": (Value, [c_void_p, c_char_p, c_size_t, c_char_p, c_int]),
    "JS_Call": (Value, [c_void_p, Value, Value, c_int, POINTER(Value)]),
    "JS_HasException": (c_bool, [c_void_p]),
    "JS_GetException": (Value, [c_void_p]),
    "JS_ToCStringLen2": (c_void_p, [c_void_p, POINTER(c_size_t), Value, c_bool]),
    "JS_FreeCString": (None, [c_void_p, c_void_p]),
    "JS_NewStringLen": (Value, [c_void_p, c_char_p, c_size_t]),
    "JS_NewArrayBufferCopy": (Value, [c_void_p, c_char_p, c_size_t]),
    "JS_GetArrayBuffer": (c_void_p, [c_void_p, POINTER(c_size_t), Value]),
    "JS_GetPropertyStr": (Value, [c_void_p, Value, c_char_p]),
    "JS_SetPropertyStr": (c_int, [c_void_p, Value, c_char_p, Value]),
    "JS_DupValue": (Value, [c_void_p, Value]),
    "JS_FreeValue": (None, [c_void_p, Value]),
}

#: The functions of the engine that the C module `_bridge` calls.
_BRIDGE_FUNCTIONS = (
    "JS_NewCFunctionData", "JS_NewStringLen", "JS_ToCStringLen2", "JS_FreeCString", "JS_NewArray",
    "JS_DefinePropertyValueUint32", "JS_ParseJSON", "JS_JSONStringify", "JS_FreeValue",
    "JS_IsJobPending",
)  # fmt: skip


def library(path: str) -> Any:
    """The functions of the engine, with their types.

    Returns a new object each time. So the types do not change for other users of the library.
    """
    try:
        library = ctypes.PyDLL(path)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EngineUnsupported(str(error)) from error
    return library


def bridge_addresses(js: Any) -> dict[str, int]:
    """The addresses of the engine's functions that `_bridge` calls. Raises `EngineUnsupported`."""
    try:
        return {name: ctypes.cast(getattr(js, name), c_void_p).value or 0 for name in _BRIDGE_FUNCTIONS}
    except AttributeError as error:
        raise EngineUnsupported(str(error)) from error


def pointers(js: Any, capsule: object) -> tuple[int, int]:
    """Find the JSRuntime and the JSContext in dukpy's capsule.

    Raises `EngineUnsupported` if they cannot be verified.
    """
    get_pointer = PYFUNCTYPE(c_void_p, ctypes.py_object, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
    try:
        address = get_pointer(capsule, _CAPSULE_NAME)
    except ValueError as error:
        raise EngineUnsupported(str(error)) from error
    runtime, context = (c_uint64 * 2).from_address(address)
    for pointer in (runtime, context):
        if pointer < 4096 or pointer % 8:
            raise EngineUnsupported("dukpy's context does not begin with two pointers")
    if js.JS_GetRuntime(context) != runtime:
        raise EngineUnsupported("dukpy's context does not begin with the runtime and the context of QuickJS")
    return runtime, context
