"""Has Python look at all of its objects less often.

A full collection of the cyclic garbage collector stops all threads, for some 50 µs for each session: half a second with
10,000 of them. By default, one comes each time when the number of long-lived objects has grown by a quarter. So while
5,000 clients connect, the others waited for several of these. Young garbage is collected as often as before.
"""

from __future__ import annotations

import gc

__all__ = ["NEW_OBJECTS", "postpone_full_collections"]

#: A full collection waits for so many more objects. An open session has about 90.
NEW_OBJECTS = 1_000_000

#: The third threshold of `gc`, as Python sets it.
_DEFAULT = 10


def postpone_full_collections() -> None:
    """Call it in a process of the server's own. Does nothing if the application has set the thresholds itself."""
    first, second, third = gc.get_threshold()
    if first and second and third == _DEFAULT:
        gc.set_threshold(first, second, max(third, NEW_OBJECTS // (first * second)))
