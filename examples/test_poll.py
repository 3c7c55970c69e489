"""Tests of poll.js: ``python -m pytest examples``."""

from pathlib import Path

import pytest

from wsthreads.testing import play


@pytest.fixture
def poll():
    with play(Path(__file__).with_name("poll.js")) as poll:
        yield poll


def test_everybody_sees_each_vote(poll):
    ann, bob = poll.connect(user="ann"), poll.connect(user="bob")
    nobody = {"Soup": 0, "Salad": 0, "Pizza": 0}
    assert ann.take_json() == bob.take_json() == [{"type": "poll", "changes": 0, "counts": nobody, "mine": None}]
    ann.send("Soup")
    bob.send("Pizza")
    for client in ann, bob:
        first, second = client.take_json()
        assert first == {"type": "poll", "changes": 1, "counts": {**nobody, "Soup": 1}}
        assert second == {"type": "poll", "changes": 2, "counts": {**nobody, "Soup": 1, "Pizza": 1}}


def test_a_user_has_one_vote_and_may_change_it(poll):
    ann, tab, bob = poll.connect(user="ann"), poll.connect(user="ann"), poll.connect(user="bob")
    ann.send("Soup")
    tab.send("Salad")
    bob.take()
    bob.send("Salad")
    assert bob.take_json()[-1]["counts"] == {"Soup": 0, "Salad": 2, "Pizza": 0}


def test_who_comes_later_sees_the_votes_and_the_own_one(poll):
    ann = poll.connect(user="ann")
    ann.send("Soup")
    ann.close()
    for name, mine in ("ann", "Soup"), ("bob", None), ("toString", None), ("__proto__", None):
        (result,) = poll.connect(user=name).take_json()
        assert (result["counts"]["Soup"], result["mine"]) == (1, mine)


@pytest.mark.parametrize("name", ["__proto__", "toString", "constructor"])
def test_a_voter_may_have_any_name(poll, name):
    voter = poll.connect(user=name)
    for choice in ("Soup", "Salad"):
        voter.send(choice)
    assert voter.take_json()[-1]["counts"] == {"Soup": 0, "Salad": 1, "Pizza": 0}


def test_what_is_no_choice_is_no_vote(poll):
    ann = poll.connect(user="ann")
    ann.take()
    for text in ("", "soup", "votes", b"Soup"):
        ann.send(text)
    assert ann.take() == []
