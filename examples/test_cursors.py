"""Tests of cursors.js: ``python -m pytest examples``."""

import json
from pathlib import Path

import pytest

from wsthreads.testing import play


@pytest.fixture
def board():
    with play(Path(__file__).with_name("cursors.js")) as board:
        yield board


def test_the_others_see_where_one_points(board):
    ann, bob = board.connect(user="ann"), board.connect(user="bob")
    eve = board.connect(user="eve", room="another")
    for client in ann, bob, eve:
        client.take()
    ann.send(json.dumps({"x": 0.25, "y": 1}))
    assert bob.take_json() == [{"type": "cursor", "user": "ann", "x": 0.25, "y": 1}]
    assert ann.take() == eve.take() == []


def test_everybody_knows_whose_cursors_there_can_be(board):
    ann = board.connect(user="ann")
    board.advance(0.2)
    (welcome, _) = ann.take_json()
    assert [person["user"] for person in welcome["people"]] == ["ann"]
    bob = board.connect(user="bob")
    board.advance(0.2)
    assert [person["user"] for person in ann.take_json()[0]["joined"]] == ["bob"]
    bob.close()
    board.advance(0.2)
    assert [person["user"] for person in ann.take_json()[0]["left"]] == ["bob"]
