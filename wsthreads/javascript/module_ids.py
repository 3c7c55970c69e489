"""The ids of a script's modules in the engine.

A module's *id* is its path relative to the script's folder, with ``/`` between folders. Stacks show this id. The engine
never forgets a module, so each reload uses ids with another version: ``chat.js?2``. Version 1 has no suffix.
"""

from __future__ import annotations

import re

__all__ = ["bare_id", "split_id", "versioned"]

_VERSION = re.compile(r"\?(\d+)\Z")


def versioned(bare: str, version: str) -> str:
    """The id of a module in this version."""
    return bare if version == "1" else f"{bare}?{version}"


def split_id(identity: str) -> tuple[str, str]:
    """An id without its version, and the version."""
    match = _VERSION.search(identity)
    return (identity[: match.start()], match[1]) if match else (identity, "1")


def bare_id(identity: str) -> str:
    """An id without its version."""
    return split_id(identity)[0]
