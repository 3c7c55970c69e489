"""Questions to all processes, and their answers, over plain channels. Redis does not store them.

A question is published on one channel, to which all processes with a link are subscribed. Redis returns how many
receive it. Each of these processes answers on the wake channel of the process that asks. That process waits for this
many answers, or until its timeout.

Questions and answers are JSON objects. A question has ``question`` (a random id), ``process`` (the one that asks),
``kind`` and ``argument``. An answer has ``question``, ``process`` (the one that answers), ``pid``, ``host`` and
``value``.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from collections.abc import Callable
from functools import partial
from threading import Condition
from time import monotonic
from typing import Any
from weakref import WeakMethod

from wsthreads.loggers import get_logger
from wsthreads.threads.drainer import Drainer

__all__ = ["MAX_ANSWER_BYTES", "Questions", "parse_answer", "weak"]

log = get_logger(__name__)

#: The largest answer, in bytes.
MAX_ANSWER_BYTES = 4 * 1024 * 1024

_PROCESS = re.compile("[A-Za-z0-9_-]{1,40}")


class Questions:
    """Asks and answers questions, for one process. Any thread.

    `publish` sends a question to all processes. It returns how many of them receive it, or None. `reply` sends an
    answer to one process. `patience_s` returns how long a call may wait for Redis. `on_malformed` gets descriptions of
    malformed data from Redis.
    """

    def __init__(
        self,
        process: str,
        answers: dict[str, Callable[[], Callable[[Any], Any] | None]],
        *,
        publish: Callable[[bytes], int | None],
        reply: Callable[[str, bytes], None],
        patience_s: Callable[[], float],
        on_malformed: Callable[[str], None],
    ) -> None:
        self._process = process
        self._answers = answers
        self._publish = publish
        self._reply = reply
        self._patience_s = patience_s
        self._on_malformed = on_malformed
        self._changed = Condition()  # guards _hears and _open
        self._hears = False
        self._open: dict[str, list[dict[str, Any]]] = {}  # the answers that have arrived, by question
        self._thread = Drainer("wsthreads-redis-answers")

    def hear(self) -> None:
        """From now on, this process receives questions and answers. Called by the reader's thread."""
        with self._changed:
            self._hears = True
            self._changed.notify_all()

    def deafen(self) -> None:
        """From now on, this process receives no questions or answers, because its subscriptions are being renewed.

        Called by the reader's thread.
        """
        with self._changed:
            self._hears = False

    def ask(
        self, kind: str, argument: Any, timeout_s: float, enough: Callable[[Any], bool] | None
    ) -> list[dict[str, Any]]:
        """Ask all other processes.

        Waits until all have answered, or `enough` is true for one answer, but at most `timeout_s`.
        """
        return self.ask_all(kind, argument, timeout_s, enough)[0]

    def ask_all(
        self, kind: str, argument: Any, timeout_s: float, enough: Callable[[Any], bool] | None
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Like `ask`, but also returns how many processes have not answered. None if Redis is unavailable.

        First waits until this process can receive answers, because its connection may be new. This process also answers
        itself. If it did not receive its own answer, its connection has broken, and it may have missed the answers of
        others.
        """
        question, deadline = secrets.token_urlsafe(9), monotonic() + timeout_s
        with self._changed:
            if not self._changed.wait_for(lambda: self._hears, min(timeout_s, self._patience_s())):
                return [], None
        answers: list[dict[str, Any]] = []
        self._open[question] = answers
        try:
            asked = {"question": question, "process": self._process, "kind": kind, "argument": argument}
            count = self._publish(json.dumps(asked).encode())
            if count is None:
                return [], None

            def is_done() -> bool:
                if len(answers) >= count:
                    return True
                return enough is not None and any(
                    enough(each["value"]) for each in answers if each["process"] != self._process
                )

            with self._changed:
                self._changed.wait_for(is_done, max(0.0, deadline - monotonic()))
            arrived = answers.copy()
            others = [each for each in arrived if each["process"] != self._process]
            return others, max(count, len(others) + 1) - len(arrived)
        finally:
            del self._open[question]

    def note_for_all(self, kind: str, argument: Any) -> bytes:
        """Encode a question that needs no answer."""
        return note_for_all(self._process, kind, argument)

    def take_question(self, data: bytes) -> None:
        """Handle a question. Does not block, because another thread answers it."""
        asked = _object(data)
        if asked is None or not all(isinstance(asked.get(key), str) for key in ("question", "process", "kind")):
            self._on_malformed(f"{len(data)} bytes that are not a question")
        elif not _PROCESS.fullmatch(asked["process"]):
            self._on_malformed("a question of a process without a valid name")
        elif asked["process"] == self._process:
            self._note({**self._head(asked["question"]), "value": None})
        else:
            self._thread.go_on(partial(self._answer, asked))

    def _answer(self, asked: dict[str, Any]) -> bool:
        """Answer a question. Answers even after an error, so that the other process does not wait for nothing."""
        value = None
        function = self._answers.get(asked["kind"], _nothing)()
        if function is not None:
            try:
                value = function(asked.get("argument"))
            except Exception:
                what = "a question of another process (%.40s) failed here, so that process gets no data from this one"
                log.exception(what, asked["kind"])
        if not asked["question"]:
            return False
        head = self._head(asked["question"])
        data = json.dumps({**head, "value": value}).encode()
        if len(data) > MAX_ANSWER_BYTES:
            what = "an answer to another process was not sent: it has %d bytes, and the limit is %d"
            log.warning(what, len(data), MAX_ANSWER_BYTES)
            data = json.dumps({**head, "value": None}).encode()
        self._reply(asked["process"], data)
        return False

    def take_answer(self, data: bytes) -> None:
        """Pass an answer to the thread that waits for it."""
        answer = parse_answer(data)
        if answer is None:
            self._on_malformed(f"{len(data)} bytes that are not an answer")
        else:
            self._note(answer)

    def _note(self, answer: dict[str, Any]) -> None:
        with self._changed:
            answers = self._open.get(answer["question"])
            if answers is not None:
                named = {key: answer.get(key) for key in ("pid", "host", "process", "value")}
                answers.append(named)
                self._changed.notify_all()

    def _head(self, question: str) -> dict[str, Any]:
        return {"question": question, "process": self._process, "pid": os.getpid(), "host": socket.gethostname()}

    def stop(self, timeout_s: float) -> None:
        self._thread.stop(timeout_s)

    def release(self) -> None:
        """Let the thread end soon. Takes no lock, so finalizers may call this."""
        self._thread.release()


def note_for_all(process: str, kind: str, argument: Any) -> bytes:
    """Encode a question of `process` that needs no answer."""
    return json.dumps({"question": "", "process": process, "kind": kind, "argument": argument}).encode()


def parse_answer(data: bytes) -> dict[str, Any] | None:
    """Parse an answer. Returns None if it is malformed."""
    answer = _object(data)
    if answer is None or not all(isinstance(answer.get(key), str) for key in ("question", "process", "host")):
        return None
    return {"pid": None, "value": None, **answer}


def weak(function: Callable[[Any], Any]) -> Callable[[], Callable[[Any], Any] | None]:
    """Returns a function that returns `function`.

    If that is a method of an object that no longer exists, returns None.
    """
    return WeakMethod(function) if hasattr(function, "__self__") else lambda: function


def _nothing() -> None:
    return None


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
