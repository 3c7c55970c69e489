"""Makes full garbage collections rarer.

A full collection of the cyclic garbage collector stops all threads, for about 50 µs per session: half a second with
10,000 sessions. By default, one happens each time the number of long-lived objects has grown by a quarter. So while
5,000 clients connected, other clients waited for several full collections. Young garbage is collected as often as
before.
"""

from __future__ import annotations

import gc

__all__ = ["NEW_OBJECTS", "postpone_full_collections"]

#: How many new objects cause a full collection. An open session has about 90.
NEW_OBJECTS = 1_000_000

#: The third threshold of `gc`, as Python sets it.
_DEFAULT = 10


def postpone_full_collections() -> None:
    """Call this only in a process that belongs to the server.

    Does nothing if the application has set the thresholds itself.
    """
    first, second, third = gc.get_threshold()
    if first and second and third == _DEFAULT:
        gc.set_threshold(first, second, max(third, NEW_OBJECTS // (first * second)))
