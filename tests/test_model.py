"""Rooms and sessions under random programs, against the model of `tests.stress.model`; and what the model notices."""

import os
import random
import re

import pytest

from tests.stress.model.program import Program
from tests.stress.model.run import Kind, Run, World

SCALE = float(os.environ.get("WSTHREADS_TEST_SCALE", "1"))

#: A mutation has the checker wait for what never comes.
PATIENCE_S = 1.5 * SCALE

#: Programs until a mutation that shows itself seldom is noticed.
PROGRAMS = 12

#: Which check notices what. A message that is lost may be one that a client, or the test, waits for; or a part of what
#: the server notes of itself, which comes in messages, too: then what that told of seems not to have been handled.
NOTICED_AS = {
    "a broadcast is dropped": "lost",
    "a message is dropped": "lost|progress|life cycle|messages in",
    "two frames are swapped": "order of calls|order of a room",
    "a broadcast comes twice": "doubled",
    "a room has no order": "order of a room",
    "nobody is left out": "not a member",
    "what waits is lost at a close": "lost",
    "a leave comes late": "not a member",
    "a join comes late": "lost",
    "somebody stays a member": "members",
    "a send is denied": "not sent",
    "a send stays behind": "order of calls|life cycle|progress",
    "on close comes twice": "life cycle",
    "on close is forgotten": "messages in",
    "a send overtakes a broadcast": "order of calls",
}


def shape(program):
    return [
        (round.fault, [guest.name for guest in round.arrivals],
         {name: [(action.kind, action.seconds, action.command and [(step.number, step.op, step.argument, step.size)
                 for step in action.command.steps]) for action in actions] for name, actions in round.actions.items()})
        for round in program.rounds
    ]  # fmt: skip


def test_a_seed_decides_on_the_program():
    assert shape(Program(7, faults=True)) == shape(Program(7, faults=True))
    assert shape(Program(7, faults=True)) != shape(Program(8, faults=True))


@pytest.mark.parametrize("handler", ["python", "javascript"])
@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
def test_random_programs_break_no_promise(handler, shared):
    hold(Kind(handler, shared), anything())


def test_random_programs_break_no_promise_in_forks_over_redis():
    hold(Kind(shared=True, gunicorn=True), anything(), rounds=2)


def test_random_programs_break_no_promise_while_redis_is_in_trouble():
    hold(Kind(shared=True, faults=True), anything(), rounds=3)


def anything():
    return random.randrange(10**6)


def hold(kind, seed, rounds=4):
    with World(kind) as world:
        wrong = Run(world, Program(seed, rounds=rounds, faults=kind.faults)).execute()
        assert wrong == [], f"seed {seed}, {rounds} rounds, {kind}\n{world.log()}"


@pytest.mark.long
@pytest.mark.quiet  # a server without a core makes no progress, and that is noticed first
@pytest.mark.parametrize(("mutation", "check"), NOTICED_AS.items())
def test_the_model_notices_a_server_that_is_broken(mutation, check):
    with World(Kind(mutation=mutation, shared=mutation == "a send overtakes a broadcast")) as world:
        wrong = []
        for seed in range(PROGRAMS):
            wrong = Run(world, Program(seed, rounds=2), patience_s=PATIENCE_S).execute()
            if wrong:
                break
    assert any(re.match(f"({check}): ", text) for text in wrong), wrong
