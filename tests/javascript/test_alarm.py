"""The interrupt handler of a script's engine, in both languages."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import shutil
import sys
from ctypes import PYFUNCTYPE, c_int, c_int32, c_void_p
from time import monotonic, sleep
from typing import Any

import pytest

from wsthreads.javascript import alarm as in_python

BUILT = importlib.util.find_spec("wsthreads._native._bridge") is not None
COMPILER = shutil.which(os.environ.get("CC", "cc")) is not None
needs_c = pytest.mark.skipif(not BUILT and not COMPILER, reason="there is no C compiler here")

LONG_S = 1000.0


class Alarm:
    """An alarm in one of the languages, its counter, and what its `look` was asked and answers."""

    def __init__(self, language: str, *, has_counter: bool = True) -> None:
        self.counter = c_int32(0)
        self.asked: list[float] = []
        self.answer: Any = False
        if language == "Python":
            made: Any = in_python.Alarm(self.counter if has_counter else None, self._look)
            self.ask = lambda: made.ask(0, 0)
        else:
            module = importlib.import_module("wsthreads._native._bridge")
            made = module.Alarm(ctypes.addressof(self.counter) if has_counter else 0, self._look)
            handler = PYFUNCTYPE(c_int, c_void_p, c_void_p)(module.interrupt_handler)
            self.ask = lambda: handler(None, id(made))
        self.made = made

    def _look(self, now: float) -> bool:
        self.asked.append(now)
        if isinstance(self.answer, BaseException):
            raise self.answer
        answer: bool = self.answer
        return answer


@pytest.fixture(params=["Python", pytest.param("C", marks=needs_c)])
def language(request: pytest.FixtureRequest) -> str:
    language: str = request.param
    return language


def test_a_call_runs_on_and_is_asked_at_longer_intervals_up_to_a_limit(language: str) -> None:
    alarm = Alarm(language)
    before = monotonic()
    now = alarm.made.arm(LONG_S)
    assert before <= now <= monotonic()
    assert (alarm.made.armed_at, alarm.made.timeout_s, alarm.made.deadline) == (now, LONG_S, now + LONG_S)
    assert now < alarm.made.turn_ends < now + 1
    assert alarm.counter.value == in_python.STEP
    alarm.made.turn_ends = in_python.NEVER
    counts = []
    for _ in range(30):
        assert alarm.ask() == 0
        counts.append(alarm.counter.value)
    assert max(counts) <= in_python.MAX_OPERATIONS
    assert 1 <= counts[0] <= 2 * in_python.STEP, "fewer if this thread had no core"
    assert alarm.asked == []


def test_slow_operations_are_asked_after_fewer_of_them(language: str) -> None:
    alarm = Alarm(language)
    alarm.made.arm(LONG_S)
    alarm.made.turn_ends = in_python.NEVER
    sleep(20 * in_python.INTERVAL_S)
    assert alarm.ask() == 0
    assert alarm.counter.value == 1
    alarm.made.arm(LONG_S)
    assert alarm.counter.value == in_python.STEP


@pytest.mark.parametrize("reason", ["deadline", "turn_ends", "is_interrupted"])
def test_it_looks_when_it_is_time_and_stops_the_call_if_the_answer_is_yes(language: str, reason: str) -> None:
    alarm = Alarm(language)
    alarm.made.arm(LONG_S)
    setattr(alarm.made, reason, True if reason == "is_interrupted" else monotonic())
    assert alarm.ask() == 0
    alarm.answer = True
    assert alarm.ask() == 1
    assert alarm.asked == sorted(alarm.asked)
    assert len(alarm.asked) == 2
    assert alarm.made.has_stopped
    assert alarm.counter.value == in_python.MAX_OPERATIONS
    alarm.made.is_interrupted = False
    alarm.made.arm(LONG_S)
    assert not alarm.made.has_stopped
    assert alarm.ask() == 0
    assert len(alarm.asked) == 2


def test_without_a_deadline_it_does_not_look(language: str) -> None:
    alarm = Alarm(language)
    assert alarm.ask() == 0, "it was not armed"
    alarm.made.arm(0)
    alarm.made.turn_ends = in_python.NEVER
    alarm.made.disarm()
    assert alarm.ask() == 0
    assert alarm.asked == []


def test_it_needs_no_counter(language: str) -> None:
    alarm = Alarm(language, has_counter=False)
    alarm.made.arm(0)
    assert alarm.ask() == 0
    alarm.answer = True
    assert alarm.ask() == 1
    assert alarm.counter.value == 0


@needs_c
def test_in_c_an_exception_is_reported_and_does_not_stop_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_type))
    alarm = Alarm("C")
    alarm.made.arm(0)
    alarm.answer = KeyError("no")
    assert alarm.ask() == 0
    assert seen == [KeyError]


@needs_c
@pytest.mark.parametrize("arguments", [(), (0,), ("counter", print), (0, print, 1)])
def test_wrong_arguments_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        importlib.import_module("wsthreads._native._bridge").Alarm(*arguments)
