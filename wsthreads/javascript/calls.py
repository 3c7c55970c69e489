"""The arguments and answers of the Python functions that JavaScript calls.

The calls come through the C module `_bridge`, without JSON. If this module is not built, they come through dukpy's
call_python, in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from wsthreads.errors import BrokerError, PostError, UsageError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.failures import exc_info_of

__all__ = ["Answer", "Function", "in_json", "parse", "refusal"]

log = get_logger(__name__)

_decode = json.JSONDecoder().raw_decode

#: The answer of a function. None stands for undefined, a tuple for an array. Bytes are the JSON text of any other
#: value.
Answer = bool | int | float | str | bytes | tuple[Any, ...] | None

#: A function that JavaScript may call. Its arguments are JSON values.
Function = Callable[..., Answer]


def parse(text: str) -> Any:
    """Parse a JSON text. This is faster than `json.loads`, which checks its options at each call."""
    return _decode(text)[0]


def in_json(answer: Answer) -> bytes | None:
    """Encode an answer in JSON. None stands for undefined."""
    if answer is None or isinstance(answer, bytes):
        return answer
    if answer is True:
        return b"true"
    return b"false" if answer is False else json.dumps(answer).encode()


def refusal(name: str, error: BaseException) -> bytes:
    """Encode the error that the function `name` has raised. The runtime throws this answer as an error."""
    if isinstance(error, UsageError):
        message = str(error)
        kinds = {TypeError: "TypeError", ValueError: "RangeError"}
        kind = next((kinds[base] for base in kinds if isinstance(error, base)), "Error")
    elif isinstance(error, (BrokerError, PostError)):
        kind, message = "Error", str(error)
    else:
        kind, message = "Error", f"{name} failed in Python, see the log"
        log.error("%s failed, called from JavaScript", name, exc_info=exc_info_of(error))
    return json.dumps({"error": kind, "message": message}).encode()
