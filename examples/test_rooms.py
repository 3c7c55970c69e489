"""Tests of rooms.js: ``python -m pytest examples``."""

import json
from pathlib import Path

import pytest

from wsthreads.testing import play

INTERVAL_S = 0.2  # presence_interval_s
GRACE_S = 10  # presence_grace_s


@pytest.fixture
def rooms():
    with play(Path(__file__).with_name("rooms.js"), history_messages=1000) as rooms:
        yield rooms


def enter(rooms, *names, room="garden"):
    """Connect users, and drop what they have received so far."""
    clients = [rooms.connect(user=name, room=room) for name in names]
    rooms.advance(INTERVAL_S)
    for client in clients:
        client.take()
    return clients


def say(client, **fields):
    client.send(json.dumps(fields))


def changes_for(rooms, client):
    """What the client is told about the others, each as {"joined" or "left" or "changed": {name: is typing}}."""
    rooms.advance(INTERVAL_S)
    told = [message for message in client.take_json() if message["type"] == "presence"]
    return [
        {
            kind: {person["user"]: person["presence"]["typing"] for person in message[kind]}
            for kind in ("joined", "left", "changed")
            if message[kind]
        }
        for message in told
    ]


def test_people_see_who_is_there_and_who_comes_and_goes(rooms):
    (ann,) = enter(rooms, "ann")
    bob = rooms.connect(user="bob", room="garden")
    (welcome,) = bob.take_json()
    assert (welcome["type"], welcome["room"]) == ("welcome", "garden")
    assert [person["user"] for person in welcome["people"]] == ["ann", "bob"]
    assert changes_for(rooms, ann) == [{"joined": {"bob": False}}]
    bob.close()
    assert changes_for(rooms, ann) == [{"left": {"bob": False}}]


def test_a_second_tab_and_a_reload_are_not_told(rooms):
    ann, bob = enter(rooms, "ann", "bob")
    tab = rooms.connect(user="bob", room="garden")
    assert [person["sessions"] for person in tab.take_json()[0]["people"]] == [1, 2]
    tab.close()
    assert changes_for(rooms, ann) == []
    bob.lose()
    rooms.advance(GRACE_S - 1)
    rooms.connect(user="bob", room="garden")
    rooms.advance(GRACE_S + 1)
    assert changes_for(rooms, ann) == []


def test_a_lost_connection_is_a_leave_after_a_while(rooms):
    ann, bob = enter(rooms, "ann", "bob")
    bob.lose()
    rooms.advance(GRACE_S - 1)
    assert ann.take() == []
    rooms.advance(1)
    assert changes_for(rooms, ann) == [{"left": {"bob": False}}]


def test_typing_is_shown_until_the_message_comes(rooms):
    ann, bob = enter(rooms, "ann", "bob")
    say(bob, type="typing", typing=True)
    assert changes_for(rooms, ann) == [{"changed": {"bob": True}}]
    say(bob, type="typing", typing=True)
    assert changes_for(rooms, ann) == []
    say(bob, type="message", text="hello")
    assert [message["type"] for message in ann.take_json()] == ["message"]
    assert changes_for(rooms, ann) == [{"changed": {"bob": False}}]
    say(bob, type="typing", typing=True)
    say(bob, type="typing", typing=False)
    assert changes_for(rooms, ann) == []


def test_a_message_reaches_everybody_in_the_room(rooms):
    ann, bob = enter(rooms, "ann", "bob")
    (eve,) = enter(rooms, "eve", room=" cellar ")
    assert eve.session.rooms() == ["cellar"]
    say(bob, type="message", text="for the garden")
    for client in (ann, bob):
        (message,) = client.take_json()
        assert isinstance(message.pop("timestamp"), int)
        assert message.pop("id")
        assert message.pop("position")
        assert message == {"type": "message", "from": "bob", "text": "for the garden"}
    assert eve.take() == []


def texts(client):
    return [message["text"] for message in client.take_json() if message["type"] == "message"]


def test_who_comes_later_sees_the_last_fifty_messages(rooms):
    (ann,) = enter(rooms, "ann")
    for number in range(60):
        say(ann, type="message", text=str(number))
    say(ann, type="private", to="ann", text="a note to myself")
    bob = rooms.connect(user="bob", room="garden")
    *before, welcome = bob.take_json()
    assert [message["text"] for message in before] == [str(number) for number in range(10, 60)]
    assert welcome["type"] == "welcome"
    assert welcome["complete"] is True


def test_who_comes_back_gets_what_was_missed_and_perhaps_a_message_again(rooms):
    ann, bob = enter(rooms, "ann", "bob")
    for number in range(60):
        say(ann, type="message", text=f"before {number}")
    last = bob.take_json()[-1]
    bob.lose()
    for number in range(60):
        say(ann, type="message", text=f"meanwhile {number}")
    bob = rooms.connect(user="bob", room="garden", since=last["position"])
    *missed, welcome = bob.take_json()
    assert welcome["complete"] is True
    assert missed[0]["id"] == last["id"]  # which the page knows
    assert [message["text"] for message in missed[1:]] == [f"meanwhile {number}" for number in range(60)]
    again = rooms.connect(user="bob", room="garden", since=welcome["position"])
    assert texts(again) == []


def test_a_position_of_another_server_is_told(rooms):
    (ann,) = enter(rooms, "ann")
    say(ann, type="message", text="hello")
    bob = rooms.connect(user="bob", room="garden", since="of another server")
    *before, welcome = bob.take_json()
    assert [message["text"] for message in before] == ["hello"]
    assert welcome["complete"] is False


def test_a_private_message_reaches_all_tabs_of_two_people(rooms):
    ann, tab, bob = enter(rooms, "ann", "ann", "bob")
    (eve,) = enter(rooms, "eve", room="cellar")
    for client in (ann, tab, bob):
        client.take()
    say(eve, type="private", to="ann", text="psst")  # from another room
    for client in (ann, tab, eve):
        (message,) = client.take_json()
        assert (message["type"], message["from"], message["to"]) == ("private", "eve", "ann")
        assert message["text"] == "psst"
    assert bob.take() == []
    say(ann, type="private", to="ann", text="a note to myself")
    assert [len(client.take()) for client in (ann, tab, bob)] == [1, 1, 0]


def test_a_private_message_to_nobody_comes_back(rooms):
    ann, bob = enter(rooms, "ann", "bob")
    say(ann, type="private", to="Bob", text="psst")  # bob has another name
    assert ann.take_json() == [{"type": "absent", "to": "Bob", "text": "psst"}]
    assert bob.take() == []


def test_a_name_is_cut_and_a_missing_one_replaced_or_refused(rooms):
    (welcome,) = rooms.connect(user="n" * 39 + "🎉🎉", room=" " + "x" * 100).take_json()
    assert welcome["room"] == "x" * 40
    assert welcome["people"][0]["user"] == "n" * 39 + "🎉"
    (welcome,) = rooms.connect(user="ann").take_json()
    assert welcome["room"] == "lobby"
    for names in ({}, {"user": "  "}):
        assert rooms.connect(**names).closed == (4000, "say who you are: ?user=alice")
