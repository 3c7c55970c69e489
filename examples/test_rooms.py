"""Tests of rooms.js: ``python -m pytest examples``."""

from pathlib import Path

import pytest

from wsthreads.testing import play


@pytest.fixture
def rooms():
    with play(Path(__file__).with_name("rooms.js")) as rooms:
        yield rooms


def test_rooms_are_apart_and_count_their_people(rooms):
    ann = rooms.connect(user="ann", room="garden")
    eve = rooms.connect(user="eve", room=" cellar ")
    bob = rooms.connect(user="bob", room="garden")
    assert [client.session.rooms() for client in (ann, eve, bob)] == [["garden"], ["cellar"], ["garden"]]
    assert ann.take_json()[-1] == {"type": "join", "user": "bob", "members": 2}
    eve.take()
    bob.send("for the garden")
    assert ann.take_json()[0]["text"] == "for the garden"
    assert eve.take() == []
    bob.close()
    assert ann.take_json() == [{"type": "leave", "user": "bob", "members": 1}]


def test_a_name_is_cut_and_an_empty_one_replaced(rooms):
    (welcome,) = rooms.connect(user="", room="x" * 100).take_json()
    assert welcome["room"] == "x" * 40
    (welcome,) = rooms.connect().take_json()
    assert welcome["room"] == "lobby"
