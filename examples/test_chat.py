"""Tests of the chat in both languages, with `wsthreads.testing`: ``python -m pytest examples``."""

from pathlib import Path

import pytest

from wsthreads.testing import play


@pytest.fixture(params=["chat.js", "chat.py"])
def chat(request):
    with play(Path(__file__).with_name(request.param)) as chat:
        yield chat


def test_who_comes_in_is_welcomed_and_announced(chat):
    ann = chat.connect(user="ann")
    assert ann.take_json() == [{"type": "welcome", "id": ann.session.id}]
    chat.connect()
    assert ann.take_json() == [{"type": "join", "user": "anonymous"}]


def test_a_message_goes_to_all_others(chat):
    ann, bob, cid = (chat.connect(user=name) for name in ("ann", "bob", "cid"))
    for client in ann, bob, cid:
        client.take()
    ann.send("hello")
    for client in bob, cid:
        (message,) = client.take_json()
        assert isinstance(message.pop("timestamp"), int)
        assert message == {"type": "message", "from": "ann", "text": "hello"}
    assert ann.take() == []


def test_an_end_is_announced_however_it_came(chat):
    ann, bob, cid = (chat.connect(user=name) for name in ("ann", "bob", "cid"))
    ann.take()
    bob.close()
    cid.lose()
    assert ann.take_json() == [{"type": "leave", "user": "bob"}, {"type": "leave", "user": "cid"}]
    assert chat.room("chat").members() == 1
