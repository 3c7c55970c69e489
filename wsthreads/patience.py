"""Which threads must not wait for a queue to become shorter: the thread of a script, which serves all its sessions."""

from __future__ import annotations

import threading

__all__ = ["may_wait", "never_wait"]


class _Thread(threading.local):
    may_wait = True


_thread = _Thread()


def never_wait() -> None:
    """From now on, the current thread must not wait."""
    _thread.may_wait = False


def may_wait() -> bool:
    """Whether the current thread may wait."""
    return _thread.may_wait
