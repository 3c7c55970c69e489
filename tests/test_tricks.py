"""The measurement of scheduling tricks: each is left out, and nothing else is."""

import os
import re
import shutil
import sys

import pytest

from tests.bench.results import Sample, ScenarioResults
from tests.bench.trick_server import WITHOUT
from tests.bench.tricks import NATIVE, TRICKS, build_speedups, gain
from tests.programs import Program, connect, receive

BATCH, OTHER = "3", "0"


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_each_trick_is_left_out_in_one_way(trick):
    assert (trick.without != "none") + bool(trick.options) + bool(trick.define) == 1
    assert trick.without in WITHOUT
    assert trick.cases


def test_each_way_to_leave_something_out_is_a_tricks():
    assert {trick.without for trick in TRICKS.values()} == set(WITHOUT)


def test_the_numbers_in_c_can_be_set_by_the_compiler():
    source = (NATIVE / "_reading.c").read_text()
    settable = set(re.findall(r"^#ifndef (MAX_\w+)$", source, re.MULTILINE))
    assert {trick.define.partition("=")[0] for trick in TRICKS.values() if trick.define} == settable


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_c_module_with_another_number_can_be_built_and_loaded(tmp_path):
    file = build_speedups(tmp_path, "MAX_WAITING=1")
    code = (
        "from tests.bench.trick_server import _use_speedups\n"
        f"_use_speedups({str(file)!r})\n"
        "from wsthreads._native import speedups\n"
        "speedups.linger(-1, 1, 0.01, 0.16)\n"
        "print(speedups.__file__)"
    )
    with Program([sys.executable, "-c", code], env={"WSTHREADS_PURE_PYTHON": "0"}) as program:
        assert program.wait() == 0
        assert program.log.strip() == str(file)


HANDLER = """
import os

def tell(session):
    session.send(f"{os.sched_getscheduler(0)} {len(os.sched_getaffinity(0))}")

def on_open(session):
    tell(session)

def on_message(session, message):
    session.room("bench").join()
    tell(session)
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs Linux, and two cores"
)
@pytest.mark.parametrize(
    ("without", "options", "in_no_room", "in_a_room"),
    [
        ("none", [], f"{BATCH} 1", f"{OTHER} 1"),
        ("none", ["--no-cpu-affinity"], f"{OTHER} all", f"{OTHER} all"),
        ("batch", [], f"{OTHER} 1", f"{OTHER} 1"),
        ("rooms", [], f"{BATCH} 1", f"{BATCH} 1"),
        ("arenas", [], f"{BATCH} 1", f"{OTHER} 1"),
        ("inbox", [], f"{BATCH} 1", f"{OTHER} 1"),
    ],
)
def test_a_server_without_a_trick_serves(tmp_path, without, options, in_no_room, in_a_room):
    (tmp_path / "tell.py").write_text(HANDLER)
    command = [sys.executable, "-m", "tests.bench.trick_server", without, "-", str(tmp_path / "tell.py")]
    with Program([*command, "--port", "0", *options]) as server:
        url = server.wait_for(r"Listening on http(://127\.0\.0\.1:\d+)")[1]
        with connect(f"ws{url}/ws/tell") as client:
            everywhere = str(len(os.sched_getaffinity(0)))
            assert receive(client) == in_no_room.replace("all", everywhere)
            client.send("join")
            assert receive(client) == in_a_room.replace("all", everywhere)


@pytest.mark.parametrize(("better", "expected"), [("higher", 2.0), ("lower", 0.5)])
def test_the_gain_is_above_one_where_the_trick_helps(better, expected):
    results = ScenarioResults("batch-1", "a title", "a unit", better)
    for number, (with_, without) in enumerate([(20, 10), (40, 20), (30, 10)]):
        results.add(number, "with", Sample(with_))
        results.add(number, "without", Sample(without))
    assert gain(results).median == expected
