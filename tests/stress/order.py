"""The guarantees about order, as functions of the received messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from tests.stress.history import FOREVER, Step


def find_inversion(stream: Sequence[Step]) -> tuple[Step, Step] | None:
    """Two steps in the wrong order: the first was received earlier, but the second ended before the first began.

    A message is queued within the interval of its step. So steps that do not overlap must arrive in the order of server
    time, whether they belong to one handler call (`send` and `broadcast` mixed), one sender or several.
    """
    earliest: Step | None = None
    end: float = FOREVER
    for step in reversed(stream):
        if earliest is not None and end <= step.began:
            return step, earliest
        if step.ended < end:
            earliest, end = step, step.ended
    return None


def common_order(streams: Iterable[Sequence[Step]]) -> tuple[list[Step], list[Step]]:
    """One order that agrees with all `streams`; or a circle of steps, each before the next, if there is none.

    Then every pair of members received common messages in the same order. (It proves more: A, B and C cannot have
    received x before y, y before z and z before x.) Uses Kahn's algorithm on steps that directly follow each other.
    """
    edges: set[tuple[Step, Step]] = set()
    nodes: dict[Step, int] = {}  # the number of remaining predecessors
    for stream in streams:
        nodes.update(dict.fromkeys(stream, 0))
        edges.update(zip(stream, islice(stream, 1, None), strict=False))
    successors: dict[Step, list[Step]] = {}
    for before, after in edges:
        nodes[after] += 1
        successors.setdefault(before, []).append(after)
    ready = deque(step for step, left in nodes.items() if not left)
    order: list[Step] = []
    while ready:
        step = ready.popleft()
        order.append(step)
        for after in successors.get(step, ()):
            nodes[after] -= 1
            if not nodes[after]:
                ready.append(after)
    if len(order) == len(nodes):
        return order, []
    return order, _circle({step for step, left in nodes.items() if left}, edges)


def _circle(steps: set[Step], edges: set[tuple[Step, Step]]) -> list[Step]:
    """A circle among `steps`, each of which has a predecessor among them."""
    before = {after: step for step, after in edges if after in steps and step in steps}
    at = next(iter(steps))
    path: dict[Step, None] = {}
    while at not in path:
        path[at] = None
        at = before[at]
    found = list(path)
    return found[found.index(at) :][::-1]


def find_gap(
    stream: Sequence[Step], order: Sequence[Step], others: Iterable[Sequence[Step]], not_sent: set[Step]
) -> tuple[Step, Step, Step] | None:
    """A step that `stream` lacks, although one of `others` received it between two steps of `stream`.

    `stream` is what a session received from a room during one membership. `order` is a common order of that room.
    `not_sent` are the broadcasts that excluded this session. Returns (before, missing, after).
    """
    if len(stream) < 2:
        return None
    seen = {step: number for number, step in enumerate(stream)}
    first, last = order.index(stream[0]), order.index(stream[-1])
    suspects = {step for step in order[first:last] if step not in seen and step not in not_sent}
    if not suspects:
        return None
    for other in others:
        # The step may have no order relative to the session's steps. A member that received it in between is a witness.
        pending: list[Step] = []
        before: Step | None = None
        for step in other:
            if step in seen:
                if pending:
                    return before, pending[0], step
                before = step
            elif before is not None and step in suspects:
                pending.append(step)
    return None
