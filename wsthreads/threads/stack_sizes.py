"""Starts a thread with a larger stack than the server's threads have."""

from __future__ import annotations

from threading import Lock, Thread, stack_size

__all__ = ["start_with_stack"]

_starting = Lock()  # guards the stack size for new threads, which is a setting of the whole process


def start_with_stack(thread: Thread, stack_bytes: int) -> None:
    """Start a thread with a stack of this size. Raises RuntimeError if the process may not start more threads."""
    with _starting:
        before = stack_size(stack_bytes)
        try:
            thread.start()
        finally:
            stack_size(before)
