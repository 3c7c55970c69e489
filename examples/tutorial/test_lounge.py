from pathlib import Path

import pytest

from wsthreads import HandshakeRefused
from wsthreads.testing import play


@pytest.fixture
def chat():
    with play(Path(__file__).with_name("lounge.js")) as chat:
        yield chat


def enter(chat, user, **parameters):
    return chat.connect(headers={"X-User": user}, **parameters)


def test_everybody_gets_a_message(chat):
    ann, bob = enter(chat, "ann"), enter(chat, "bob")
    assert ann.take_json()[-1] == {"type": "join", "user": "bob", "members": 2}
    bob.take()
    ann.send("hello")
    for client in ann, bob:
        assert client.take_json() == [{"type": "message", "user": "ann", "text": "hello"}]


def test_the_others_are_told_who_left(chat):
    ann, bob = enter(chat, "ann"), enter(chat, "bob")
    ann.take()
    bob.close()
    assert ann.take_json() == [{"type": "leave", "user": "bob", "members": 1}]


def test_rooms_are_apart(chat):
    ann, bob, eve = enter(chat, "ann", room="garden"), enter(chat, "bob", room="garden"), enter(chat, "eve")
    bob.take(), eve.take()
    ann.send("only for the garden")
    assert [message["text"] for message in bob.take_json()] == ["only for the garden"]
    assert eve.take() == []


def test_a_client_without_a_login_is_refused(chat):
    with pytest.raises(HandshakeRefused) as caught:
        chat.connect(user="ann")
    assert caught.value.status == 401
