"""Makes full garbage collections rarer.

A full run of the cyclic garbage collector stops all threads for about 50 µs per session, which is half a second with
10,000 sessions. By default, a full run comes each time the number of long-lived objects has grown by a quarter. So
while 5,000 clients connected, other clients had to wait for several full runs. Young objects are collected as often as
before.
"""

from __future__ import annotations

import gc

__all__ = ["NEW_OBJECTS", "postpone_full_collections"]

#: After how many new objects a full collection runs. An open session has about 90 objects.
NEW_OBJECTS = 1_000_000

#: Python's default for the third threshold of `gc`.
_DEFAULT = 10


def postpone_full_collections() -> None:
    """Let full collections run only after `NEW_OBJECTS` new objects.

    Call this only in a process that belongs to the server alone.

    Does nothing if the application has changed the thresholds itself.
    """
    first, second, third = gc.get_threshold()
    if first and second and third == _DEFAULT:
        gc.set_threshold(first, second, max(third, NEW_OBJECTS // (first * second)))
