"""The promises about order, as functions of what was received."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from tests.stress.history import FOREVER, Step


def find_inversion(stream: Sequence[Step]) -> tuple[Step, Step] | None:
    """Two steps in the wrong order: the first was received earlier, though the second was over before it began.

    What one session is sent is queued within the interval of its step, so steps that do not overlap must arrive in the
    order of the server's time: of one sender, of one handler call (`send` and `broadcast` mixed), of different ones.
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
    """One order that all `streams` agree with, and a circle of steps if there is none: each before the next, and so on.

    Every pair of members then saw what both saw in the same order. (More than that: A, B and C cannot have seen x
    before y, y before z and z before x.) Kahn's algorithm on the steps that directly follow one another.
    """
    edges: set[tuple[Step, Step]] = set()
    nodes: dict[Step, int] = {}  # to how many predecessors are left
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
    """A step that one of `others` received between two that `stream` has too, and that `stream` lacks.

    `stream` is what a session received of a room during one membership, and `order` a common order of that room. It
    returns (before, missing, after). `not_sent` are the broadcasts that were for all but this session.
    """
    if len(stream) < 2:
        return None
    seen = {step: number for number, step in enumerate(stream)}
    first, last = order.index(stream[0]), order.index(stream[-1])
    suspects = {step for step in order[first:last] if step not in seen and step not in not_sent}
    if not suspects:
        return None
    for other in others:
        # A suspect may be unordered with what the session saw; somebody who saw it in between is a witness.
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
