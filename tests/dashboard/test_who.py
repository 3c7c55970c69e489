"""Who is there, on the page's socket: users, presence, kicks and bans."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack

import pytest

from tests.dashboard.test_live import closed_with
from tests.dashboard_viewer import Viewer
from tests.programs import connect, receive
from tests.wire import RawClient
from wsthreads import WebSocketApp
from wsthreads.dashboard import Dashboard
from wsthreads.dashboard.redaction import MAX_CHARS, public_json


class Club:
    def on_handshake(self, request):
        request.user = request.get_parameter("user")

    def on_open(self, session):
        value = session.get_parameter("presence")
        room = session.room("garden")
        room.join(presence=json.loads(value)) if value else room.join()
        session.send("hi")

    def on_message(self, session, message):
        session.room("garden").set_presence(json.loads(message))
        session.send("set")


@pytest.fixture
def server(serve):
    app = WebSocketApp(dashboard=Dashboard(), presence_grace_s=0)
    app.add_handler("/ws/club", Club)
    return serve(app)


@pytest.fixture
def come(server):
    with ExitStack() as stack:

        def connected(query=""):
            client = stack.enter_context(connect(f"{server.ws_url}/ws/club?{query}", close_timeout=0.5))
            assert receive(client) == "hi"
            return client

        yield connected


@pytest.fixture
def viewer(server, caplog):
    caplog.set_level(logging.INFO, "wsthreads.rooms.directory.kicks")
    with Viewer(server.ws_url) as viewer:
        yield viewer


CLUB = {"endpoint": "/ws/club"}


def test_a_sessions_row_has_its_user_whatever_its_parameters_say(viewer, come):
    come("user=ann&name=eve")
    come("name=bob")
    rows = viewer.watch("sessions")["rows"]
    assert {(row["user"], row["has_user"]) for row in rows} == {("ann", True), ("bob", False)}
    assert [row["user"] for row in viewer.watch("sessions", filter="ANN")["rows"]] == ["ann"]


def test_the_sessions_of_a_user_are_listed(viewer, come):
    for user in ("ann", "ann", "anna"):
        come(f"user={user}")
    message = viewer.watch("user", **CLUB, user="ann")
    assert (message["user"], message["endpoint"], message["matched"]) == ("ann", "/ws/club", 2)
    assert [row["user"] for row in message["rows"]] == ["ann", "ann"]
    assert viewer.watch("user", **CLUB, user="nobody")["matched"] == 0
    come("name=ann")  # is not the user
    assert viewer.watch("user", **CLUB, user="ann", limit=1)["matched"] == 2


def test_who_is_there_in_a_room(viewer, come):
    come("user=ann&presence=1")
    tab = come("user=ann&presence=2")
    come("presence={}")
    come()
    message = viewer.watch("room", **CLUB, room="garden")
    ann, nobody = message["rows"]
    assert message["matched"] == 2, "who has set no presence is a member only"
    assert (ann["key"], ann["user"], ann["sessions"], ann["presence"]) == ("ann", "ann", 2, "2")
    assert (nobody["user"], nobody["sessions"], nobody["presence"]) == (None, 1, "{}")
    assert ann["since"] <= nobody["since"]
    assert viewer.watch("room", **CLUB, room="garden", limit=1)["rows"] == [ann]
    tab.send('{"token": "sesame", "mood": "<b>"}')
    changed = viewer.next("room", lambda message: "mood" in message["rows"][0]["presence"])
    assert json.loads(changed["rows"][0]["presence"]) == {"token": "hidden (6 characters)", "mood": "<b>"}
    tab.close()
    viewer.next("room", lambda message: message["rows"][0]["sessions"] == 1)
    assert viewer.watch("room", **CLUB, room="cellar")["rows"] == []
    assert viewer.watch("room", endpoint="/ws/none", room="garden")["rows"] == []


def test_presence_values_are_shown_without_secrets_and_not_at_any_length():
    assert public_json({"a": [{"api_key": ["x"]}, None]}) == '{"a": [{"api_key": "hidden (5 characters)"}, null]}'
    assert public_json("ü" * 2000).endswith("ü… (2002 characters)")
    assert len(public_json(["x"] * 2000)) < MAX_CHARS + 50
    deep = value = []
    for _ in range(500):
        value.append([])
        value = value[0]
    assert public_json(deep) == '[[[[["…"]]]]]'


def test_a_user_is_kicked_on_all_devices(viewer, come):
    phone, tablet, other = come("user=ann"), come("user=ann"), come("user=bob")
    assert viewer.watch("user", **CLUB, user="ann")["matched"] == 2
    answer = viewer.ask(type="kick_user", **CLUB, user="ann", code=4001, reason="enough")
    assert (answer["ok"], answer["text"]) == (True, "closing 2 sessions with 4001")
    assert closed_with(phone) == closed_with(tablet) == (4001, "enough")
    viewer.next("user", lambda message: message["matched"] == 0)
    come("user=ann")  # a kick alone is no ban
    other.send("1")
    assert receive(other) == "set"


def test_a_user_is_banned(viewer, come, server):
    ann = come("user=ann")
    answer = viewer.ask(type="kick_user", **CLUB, user="ann", code=1008, reason="", ban_s=60.5)
    assert (answer["ok"], answer["text"]) == (True, "closing 1 session with 1008, banned for 60.5 s")
    assert closed_with(ann) == (1008, "")
    with RawClient(server.port, "/ws/club?user=ann") as refused:
        assert refused.status == 403
    with Viewer(server.ws_url) as later:
        event = later.event(lambda event: event["kind"] == "kick" and "banned" in event["text"])
    assert event["text"].startswith("user ann banned on /ws/club for 60.5 s: 1008")
    assert event["level"] == "info"


def test_a_room_is_closed(viewer, come, server):
    ann, bob = come("user=ann"), come()
    answer = viewer.ask(type="close_room", **CLUB, room="garden", code=4000, reason="closing time")
    assert (answer["ok"], answer["text"]) == (True, "closing 2 sessions with 4000")
    assert closed_with(ann) == closed_with(bob) == (4000, "closing time")
    assert viewer.ask(type="close_room", **CLUB, room="none")["text"] == "closing 0 sessions with 1000"
    with Viewer(server.ws_url) as later:
        assert "room garden closed" in later.event(lambda event: event["kind"] == "kick")["text"]


def test_a_message_goes_to_a_session_or_to_a_user(viewer, come):
    phone, tablet, other = come("user=ann"), come("user=ann"), come("name=bob")
    [bob] = viewer.watch("sessions", filter="bob")["rows"]
    assert viewer.ask(type="send", **CLUB, session=bob["id"], message="to one")["text"] == "sent"
    assert receive(other) == "to one"
    assert viewer.ask(type="send", **CLUB, user="ann", message="to all")["text"] == "sent to 2 sessions"
    assert receive(phone) == receive(tablet) == "to all"


def test_a_session_that_is_closed_from_the_page_counts_as_kicked(viewer, come):
    come("user=ann")
    come("user=ann")
    first, second = viewer.watch("sessions")["rows"]
    assert viewer.ask(type="close", session=first["id"])["ok"]
    assert viewer.ask(type="kick", session=second["id"], **CLUB)["ok"]
    sample = viewer.next("sample", lambda sample: sample["endpoints"]["/ws/club"]["kicks_total"] == 2)
    assert sample["endpoints"]["/ws/club"]["bans_total"] == 0


def test_samples_count_users_and_presence_changes(viewer, come):
    come("user=ann&presence=1")
    come("user=ann")
    viewer.next("sample", lambda sample: sample["endpoints"]["/ws/club"]["users"] == 1)
    sample = viewer.next("sample", lambda sample: sample["endpoints"]["/ws/club"]["presence_changes_total"] == 1)
    assert sample["endpoints"]["/ws/club"]["rooms"] == 1, "hidden rooms do not count"
