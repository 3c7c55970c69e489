"""What the page's socket sends, and does when it is asked."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import websockets

from tests.dashboard_viewer import Viewer
from tests.programs import DEADLINE_S, connect, own_threads, receive, wait_until
from tests.wire import CLOSE, TEXT, RawClient
from wsthreads import WebSocketApp
from wsthreads.cli.reloader import Reloader
from wsthreads.cli.targets import Target, add_target
from wsthreads.dashboard import MAX_VIEWERS, Dashboard
from wsthreads.dashboard.events import KEPT
from wsthreads.dashboard.live import EVENTS_INTERVAL_S


class Chat:
    def on_open(self, session):
        for room in (session.get_parameter("rooms") or "lobby").split(","):
            session.room(room).join()
        session.attributes["user"] = session.get_parameter("user")
        session.send("hi")

    def on_message(self, session, message):
        if message == "fail":
            raise LookupError("nothing there")  # the line that is looked for
        if message == "warn":
            session.send(123)
        session.send(message)


class Empty:
    def on_open(self, session):
        session.send("hi")


LINE = next(
    number
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1)
    if line.endswith("# the line that is looked for")
)


@pytest.fixture
def app():
    app = WebSocketApp(dashboard=Dashboard(), subprotocols=("chat.v1",))
    app.add_handler("/ws/chat", Chat)
    app.add_handler("/ws/empty", Empty)
    return app


@pytest.fixture
def server(serve, app):
    return serve(app)


@pytest.fixture
def people(server):
    """Connect some people to the chat: ``people(ann="lobby", bob="lobby,side")``."""
    with ExitStack() as stack:

        def come(**rooms_of):
            clients = {}
            for user, rooms in rooms_of.items():
                url = f"{server.ws_url}/ws/chat?user={user}&rooms={rooms}"
                clients[user] = stack.enter_context(connect(url, close_timeout=0.5))
                receive(clients[user])
            return clients

        yield come


@pytest.fixture
def viewer(server):
    with Viewer(server.ws_url) as viewer:
        yield viewer


def users(message):
    return [row["user"] for row in message["rows"]]


def closed_with(client):
    """Code and reason that a client was closed with."""
    with pytest.raises(websockets.ConnectionClosed) as closed:
        while True:
            receive(client)
    return closed.value.rcvd.code, closed.value.rcvd.reason


# What it is sent


def test_the_hello_tells_what_there_is(viewer):
    hello = viewer.hello
    assert hello["endpoints"] == [
        {"path": "/ws/chat", "handler": "Chat", "functions": ["on_open", "on_message"], "language": "python"},
        {"path": "/ws/empty", "handler": "Empty", "functions": ["on_open"], "language": "python"},
    ]
    assert hello["subprotocols"] == ["chat.v1"]
    assert hello["interval_s"] == 1.0
    assert {"version", "python", "pid", "started", "host", "reload", "process", "history"} < hello.keys()


def test_a_new_hello_comes_when_the_endpoints_change(viewer, app):
    app.add_handler("/ws/late", Empty)
    hello = viewer.next("hello")
    assert [endpoint["path"] for endpoint in hello["endpoints"]] == ["/ws/chat", "/ws/empty", "/ws/late"]


def test_samples_have_rates_and_counts(viewer, people, app):
    before = viewer.next("sample")
    ann = people(ann="lobby,side")["ann"]
    for _ in range(100):
        ann.send("x" * 10)
        receive(ann)
    seen, rates = 0.0, []
    while seen < 98 and len(rates) < DEADLINE_S:
        sample = viewer.next("sample")
        rates.append(sample["endpoints"]["/ws/chat"])
        clocks = {snapshot.at: snapshot.clock for snapshot in app._dashboard._sampler._snapshots}  # by another clock
        seen += rates[-1]["messages_in"] * (clocks[sample["at"]] - clocks[before["at"]])
        before = sample
    assert seen == pytest.approx(100, rel=0.02)
    busy = max(rates, key=lambda rate: rate["messages_in"])
    assert busy["sessions"] == 1
    assert busy["rooms"] == 2
    assert busy["bytes_in"] == pytest.approx(busy["messages_in"] * 16, rel=0.05)  # a header and a mask
    assert 0 < busy["handler_p50_s"] <= busy["handler_p99_s"] < 1
    idle = viewer.next("sample", lambda sample: not sample["endpoints"]["/ws/chat"]["messages_in"])
    assert idle["endpoints"]["/ws/chat"]["handler_p50_s"] is None
    assert idle["endpoints"]["/ws/empty"]["sessions"] == 0


def test_who_comes_later_gets_the_history(viewer, server):
    for _ in range(2):
        viewer.next("sample")
    with Viewer(server.ws_url) as another:
        history = another.hello["history"]
        assert len(history) >= 2
        assert [sample["at"] for sample in history] == sorted(sample["at"] for sample in history)
        assert history[0]["endpoints"].keys() == {"/ws/chat", "/ws/empty"}


def test_viewers_are_neither_shown_nor_counted(viewer, server, app):
    with Viewer(server.ws_url) as another:
        assert another.watch("sessions")["total"] == 0
        assert app.session_count == 0
        assert "sessions_opened" not in app.metrics.snapshot()
        assert another.next("sample")["endpoints"].keys() == {"/ws/chat", "/ws/empty"}


def test_so_many_pages_may_be_open_and_no_more(viewer, server):
    with ExitStack() as stack:
        for _ in range(MAX_VIEWERS - 1):
            stack.enter_context(Viewer(server.ws_url))
        with pytest.raises(websockets.InvalidStatus, match="503"):
            Viewer(server.ws_url)
        with connect(server.ws_url + "/ws/chat") as client:
            assert receive(client) == "hi"


def test_the_thread_for_viewers_lives_while_there_are_any(server):
    def threads():
        return [name for name in own_threads() if name == "wsthreads-dashboard"]

    for _ in range(2):
        with Viewer(server.ws_url), Viewer(server.ws_url):
            assert len(threads()) == 1
        wait_until(lambda: not threads(), "the end of the thread")


def test_pages_are_closed_at_shutdown(viewer, server):
    server.stop(5)
    with pytest.raises(websockets.ConnectionClosed) as closed:
        viewer.next("never")
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "server shutting down")


# Lists


def await_sent(app, count):
    """What a client has received counts as sent a moment later."""
    wait_until(lambda: app.endpoint("/ws/chat").totals().messages_out == count, f"{count} messages sent")
    wait_until(lambda: app.endpoint("/ws/chat").totals().bytes_waiting == 0, "nothing waits")


def test_sessions_are_listed(viewer, people, app):
    ann = people(ann="lobby")["ann"]
    ann.send("hello")
    assert receive(ann) == "hello"
    await_sent(app, 2)
    message = viewer.watch("sessions")
    assert (message["total"], message["matched"]) == (1, 1)
    row = message["rows"][0]
    assert {key: row[key] for key in ("endpoint", "address", "path", "user", "rooms", "room_count", "open")} == {
        "endpoint": "/ws/chat",
        "address": "127.0.0.1",
        "path": "/ws/chat",
        "user": "ann",
        "rooms": ["lobby"],
        "room_count": 1,
        "open": True,
    }
    assert (row["messages_in"], row["messages_out"], row["bytes_waiting"]) == (1, 2, 0)


def test_a_list_comes_again_when_it_has_changed(viewer, people):
    assert viewer.watch("sessions")["rows"] == []
    people(ann="lobby")
    assert users(viewer.next("sessions")) == ["ann"]


def test_a_list_that_is_watched_no_more_does_not_come_again(viewer, people):
    viewer.watch("sessions")
    viewer.watch("rooms")
    assert viewer.ask(type="unwatch", list="sessions")["ok"]
    people(ann="lobby")
    viewer.next("rooms", lambda message: message["rows"])
    with pytest.raises(TimeoutError):
        while True:
            assert json.loads(viewer.socket.recv(timeout=0.2))["type"] != "sessions"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, ["ann", "boris", "cid"]),
        ({"filter": "BORI"}, ["boris"]),
        ({"filter": "side"}, ["boris", "cid"]),
        ({"filter": "127.0.0"}, ["ann", "boris", "cid"]),
        ({"filter": "/WS/chat"}, ["ann", "boris", "cid"]),
        ({"filter": "nobody"}, []),
        ({"endpoint": "/ws/chat"}, ["ann", "boris", "cid"]),
        ({"endpoint": "/ws/empty"}, []),
        ({"endpoint": "/ws/none"}, []),
        ({"room": "lobby"}, ["ann", "boris"]),
        ({"room": "lob"}, []),
        ({"room": "lobby", "filter": "side"}, ["boris"]),
        ({"limit": 2}, ["ann", "boris"]),
        ({"limit": 2, "descending": True}, ["cid", "boris"]),
        ({"sort": "messages_in", "descending": True, "limit": 1}, ["boris"]),
        ({"sort": "messages_out", "descending": True, "limit": 1}, ["boris"]),
        ({"sort": "bytes_waiting"}, ["ann", "boris", "cid"]),
        ({"sort": "round_trip_s"}, ["ann", "boris", "cid"]),
    ],
)
def test_sessions_are_filtered_sorted_and_limited(viewer, people, app, request_, expected):
    clients = people(ann="lobby", boris="lobby,side", cid="inside")
    clients["boris"].send("x")
    receive(clients["boris"])
    await_sent(app, 4)
    message = viewer.watch("sessions", **request_)
    assert users(message) == expected
    assert message["total"] == 3


def test_a_session_is_found_by_its_id(viewer, people):
    people(ann="lobby", bob="lobby")
    row = viewer.watch("sessions")["rows"][1]
    assert users(viewer.watch("sessions", filter=row["id"].lower())) == ["bob"]


def test_rooms_are_listed_the_fullest_first(viewer, people):
    people(ann="lobby", bob="lobby,side", cid="side,inside,lobby")
    message = viewer.watch("rooms")
    assert (message["total"], message["matched"]) == (3, 3)
    assert [(row["name"], row["members"]) for row in message["rows"]] == [("lobby", 3), ("side", 2), ("inside", 1)]
    assert {row["endpoint"] for row in message["rows"]} == {"/ws/chat"}
    assert [row["name"] for row in viewer.watch("rooms", filter="SIDE", limit=1)["rows"]] == ["side"]
    assert viewer.watch("rooms", endpoint="/ws/empty")["rows"] == []


def test_two_viewers_see_each_what_they_asked_for(viewer, server, people):
    people(annie="lobby", boris="lobby")
    with Viewer(server.ws_url) as another:
        assert users(viewer.watch("sessions", filter="annie")) == ["annie"]
        assert users(another.watch("sessions", filter="boris")) == ["boris"]
        people(annie2="lobby", boris2="lobby")
        assert users(viewer.next("sessions", lambda message: len(message["rows"]) == 2)) == ["annie", "annie2"]
        assert users(another.next("sessions", lambda message: len(message["rows"]) == 2)) == ["boris", "boris2"]


# One session


class Secretive:
    def on_open(self, session):
        session.attributes.update(
            user={"name": "ann", "password": "sesame", "tags": ("a", 1, None)},
            api_key="0123456789",
            view=self,
            long="x" * 5000,
        )
        for number in range(7):
            session.room(f"room {number}").join()
        session.send("hi")


def test_a_look_into_a_session_hides_its_secrets(serve):
    app = WebSocketApp(dashboard=Dashboard(), subprotocols=("chat.v1",))
    app.add_handler("/ws/secret", Secretive)
    server = serve(app)
    headers = {
        "Cookie": "session=0123",
        "Authorization": "Bearer 01234567",
        "X-Api-Key": "012345",
        "Referer": "http://example.org/?token=sesame&page=2",
        "X-Plain": "shown",
    }
    url = server.ws_url + "/ws/secret?user=ann&token=sesame&plain=shown"
    with (
        Viewer(server.ws_url) as viewer,
        connect(url, additional_headers=headers, subprotocols=["chat.v1", "token.sesame"]) as client,
    ):
        receive(client)
        session_id = viewer.watch("sessions")["rows"][0]["id"]
        details = viewer.watch("session", id=session_id)
        assert details["gone"] is False
        assert details["parameters"] == {"user": "ann", "token": "hidden (6 characters)", "plain": "shown"}
        shown = details["headers"]
        assert shown["cookie"] == "hidden (12 characters)"
        assert shown["authorization"] == "hidden (15 characters)"
        assert shown["x-api-key"] == "hidden (6 characters)"
        assert shown["sec-websocket-key"] == "hidden (24 characters)"
        assert shown["x-plain"] == "shown"
        assert "page=2" in shown["referer"]
        assert details["subprotocol"] == "chat.v1"
        assert details["rooms"] == [f"room {number}" for number in range(7)]
        assert details["room_count"] == 7
        attributes = details["attributes"]
        assert attributes["user"] == "{'name': 'ann', 'password': hidden (6 characters), 'tags': ('a', 1, None)}"
        assert attributes["api_key"] == "hidden (10 characters)"
        assert attributes["view"] == "<Secretive>"
        assert attributes["long"].endswith("x… (5000 characters)")
        assert "sesame" not in json.dumps(details)
        assert "0123" not in json.dumps(details)


class Careless:
    def on_open(self, session):
        session.attributes = None
        session.send("hi")


def test_a_list_that_cannot_be_made_is_told_and_stops_nothing_else(serve, caplog):
    app = WebSocketApp(dashboard=Dashboard())
    app.add_handler("/ws/careless", Careless)
    server = serve(app)
    with Viewer(server.ws_url) as viewer, connect(server.ws_url + "/ws/careless") as client:
        receive(client)
        viewer.send(type="watch", list="sessions")
        answer = viewer.next("answer", lambda answer: not answer["ok"])
        assert answer["text"].startswith("the list of sessions failed")
        assert viewer.watch("rooms")["total"] == 0
        viewer.next("sample")
        viewer.next("sample")
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_a_session_that_has_ended_is_gone(viewer, people):
    ann = people(ann="lobby")["ann"]
    session_id = viewer.watch("sessions")["rows"][0]["id"]
    assert viewer.watch("session", id=session_id)["user"] == "ann"
    ann.close()
    message = viewer.next("session", lambda message: message["gone"])
    assert message["id"] == session_id
    assert viewer.watch("session", id="nobody")["gone"] is True


def test_attributes_that_a_script_has_set_are_shown(serve, tmp_path):
    script = tmp_path / "chat.js"
    script.write_text("""
        export function onOpen(session) {
          session.setAttribute("name", "ann");
          session.setAttribute("account", { id: 7, password: "sesame" });
          session.setAttribute("seen", new Set([1]));
          session.send("hi");
        }
        export function onMessage(session) {
          session.send("busy");
          const end = Date.now() + 1500;
          while (Date.now() < end) {}
        }
    """)
    app = WebSocketApp(dashboard=Dashboard(), script_timeout_s=5)
    app.add_script("/ws/chat", script)
    server = serve(app)
    with Viewer(server.ws_url) as viewer, connect(server.ws_url + "/ws/chat") as client:
        receive(client)
        session_id = viewer.watch("sessions")["rows"][0]["id"]
        attributes = viewer.watch("session", id=session_id)["attributes"]
        assert attributes["name"] == "ann"
        assert attributes["account"] == "{'id': 7, 'password': hidden (6 characters)}"
        assert "1" in attributes["seen"]
        client.send("now")
        assert receive(client) == "busy"
        assert viewer.watch("session", id=session_id)["attributes"] == {"?": "chat.js is busy"}
        viewer.next("session", lambda message: message["attributes"].get("name") == "ann")


HANDLERS_WITH_ROOMS = {
    ".js": """
        export function onOpen(session) {
          const room = session.room("lobby");
          session.setAttribute("lobby", room);
          session.setAttribute("several", { room, me: session, password: "sesame" });
        }
    """,
    ".py": """
def on_open(session):
    room = session.room("lobby")
    session.attributes.update(lobby=room, several={"room": room, "password": "sesame"})
""",
}


@pytest.mark.parametrize("suffix", HANDLERS_WITH_ROOMS)
def test_a_room_that_is_an_attribute_is_shown_by_its_name(serve, tmp_path, suffix):
    handler = tmp_path / f"chat{suffix}"
    handler.write_text(HANDLERS_WITH_ROOMS[suffix])
    app = WebSocketApp(dashboard=Dashboard())
    add_target(app, Target("/ws/chat", handler))
    server = serve(app)
    with Viewer(server.ws_url) as viewer, connect(server.ws_url + "/ws/chat"):
        wait_until(app.endpoint("/ws/chat").session_count, "the session")
        session_id = viewer.watch("sessions")["rows"][0]["id"]
        attributes = viewer.watch("session", id=session_id)["attributes"]
        assert attributes["lobby"].replace('"', "'") in ("Room lobby", "Room 'lobby'")
        assert "Room" in attributes["several"]
        assert "lobby" in attributes["several"]
        assert "sesame" not in attributes["several"]


BUSY = {
    ".js": "export function onMessage(session, message) { session.send(message); }",
    ".py": "def on_message(session, message):\n    session.send(message)\n",
}


@pytest.mark.parametrize("suffix", BUSY)
def test_the_ping_of_a_client_that_sends_all_the_time_is_measured_too(serve, tmp_path, suffix):
    handler = tmp_path / f"busy{suffix}"
    handler.write_text(BUSY[suffix])
    app = WebSocketApp(dashboard=Dashboard())
    add_target(app, Target("/ws/busy", handler))
    server = serve(app)
    with Viewer(server.ws_url) as viewer, connect(server.ws_url + "/ws/busy") as client:
        done = threading.Event()

        def talk():
            while not done.is_set():
                client.send("x")
                receive(client)

        talker = threading.Thread(target=talk)
        talker.start()
        try:
            viewer.watch("sessions")
            measured = viewer.next("sessions", lambda message: message["rows"][0]["round_trip_s"] is not None)
            assert 0 < measured["rows"][0]["round_trip_s"] < DEADLINE_S
        finally:
            done.set()
            talker.join(DEADLINE_S)


def test_nobody_is_pinged_where_pings_are_switched_off(serve):
    app = WebSocketApp(dashboard=Dashboard(), ping_interval_s=0)
    app.add_handler("/ws", Empty)
    server = serve(app)
    with Viewer(server.ws_url) as viewer, RawClient(server.port, "/ws") as client:
        assert client.receive() == (TEXT, b"hi")
        session_id = viewer.watch("sessions")["rows"][0]["id"]
        assert viewer.ask(type="close", session=session_id, code=1000, reason="")["ok"]
        assert client.receive()[0] == CLOSE, "a ping was sent before"


# Actions


def test_a_session_is_kicked(viewer, people):
    clients = people(annie="lobby", bob="lobby")
    session_id = viewer.watch("sessions", filter="annie")["rows"][0]["id"]
    answer = viewer.ask(type="kick", session=session_id)
    assert (answer["ok"], answer["text"]) == (True, "closing with 1008")
    assert closed_with(clients["annie"]) == (1008, "kicked by the operator")
    viewer.next("sessions", lambda message: not message["rows"])
    assert viewer.ask(type="kick", session=session_id) == {
        "type": "answer", "request": 3, "ok": False, "text": f"the session {session_id!r} has ended",
    }  # fmt: skip
    clients["bob"].send("still here")
    assert receive(clients["bob"]) == "still here"


def test_a_session_is_closed_with_a_code_and_a_reason(viewer, people):
    clients = people(ann="lobby", bob="lobby")
    ids = {row["user"]: row["id"] for row in viewer.watch("sessions")["rows"]}
    assert viewer.ask(type="close", session=ids["ann"], code=4000, reason="bye")["ok"]
    assert closed_with(clients["ann"]) == (4000, "bye")
    assert viewer.ask(type="close", session=ids["bob"])["ok"]
    assert closed_with(clients["bob"]) == (1000, "")


def test_a_message_goes_to_a_room(viewer, people):
    clients = people(ann="lobby", bob="lobby", cid="side")
    answer = viewer.ask(type="broadcast", endpoint="/ws/chat", room="lobby", message="from above")
    assert (answer["ok"], answer["text"]) == (True, "sent to 2 members")
    assert receive(clients["ann"]) == receive(clients["bob"]) == "from above"
    assert viewer.ask(type="broadcast", endpoint="/ws/chat", room="side", message="")["text"] == "sent to 1 member"
    assert receive(clients["cid"]) == ""
    assert viewer.ask(type="broadcast", endpoint="/ws/chat", room="none", message="x")["text"] == "sent to 0 members"


BAD = {
    "[1": "a request must be JSON text: ",
    "[" * 100_000: "a request must be JSON text: ",
    "7": "a request must be a JSON object, not 7",
    '{"type":"fly","request":5}':
        "type must be one of watch, unwatch, close, kick, kick_user, close_room, send, broadcast, read_message, "
        'not "fly"',
    '{"request":5}': "type must be one of watch, ",
    '{"type":["watch"],"request":5}': "type must be one of",
    '{"type":"watch","list":"sessions","request":"x"}': 'request must be a whole number, not "x"',
    '{"type":"watch","list":"all","request":5}':
        'list must be one of sessions, rooms, session, user, room, room_state, not "all"',
    '{"type":"watch","list":"sessions","request":5,"limit":501}': "limit must be a whole number from 1 to 500, not 501",
    '{"type":"watch","list":"sessions","request":5,"limit":0}': "limit must be a whole number from 1 to 500, not 0",
    '{"type":"watch","list":"rooms","request":5,"limit":true}': "limit must be a whole number from 1 to 500, not true",
    '{"type":"watch","list":"rooms","request":5,"limit":1e3}': "limit must be a whole number from 1 to 500, not 1000.0",
    '{"type":"watch","list":"sessions","request":5,"filter":7}': "filter must be a text, not 7",
    '{"type":"watch","list":"sessions","request":5,"filter":"%s"}' % ("x" * 201): "filter may have at most 200",
    '{"type":"watch","list":"sessions","request":5,"sort":"id"}': "sort must be one of since, messages_in",
    '{"type":"watch","list":"sessions","request":5,"descending":1}': "descending must be true or false, not 1",
    '{"type":"watch","list":"sessions","request":5,"endpoint":{}}': "endpoint must be a text, not {}",
    '{"type":"watch","list":"session","request":5}': "id must be a text, not nothing",
    '{"type":"watch","list":"user","endpoint":"/ws/chat","request":5}': "user must be a text, not nothing",
    '{"type":"watch","list":"room","room":"a","request":5}': "endpoint must be a text, not nothing",
    '{"type":"kick_user","user":"ann","request":5}': "endpoint must be a text, not nothing",
    '{"type":"kick_user","endpoint":"/ws/chat","user":"","request":5}': "the name of a user must be",
    '{"type":"kick_user","endpoint":"/ws/chat","user":"ann","ban_s":"60","request":5}': 'ban_s must be a number, not "',
    '{"type":"kick_user","endpoint":"/ws/chat","user":"ann","ban_s":-1,"request":5}': "ban_s must be a number of sec",
    '{"type":"kick_user","endpoint":"/ws/chat","user":"ann","ban_s":NaN,"request":5}': "ban_s must be a number of sec",
    '{"type":"kick_user","endpoint":"/ws/chat","user":"ann","code":1005,"request":5}': "close code",
    '{"type":"close_room","endpoint":"/ws/none","room":"a","request":5}': "no endpoint '/ws/none'",
    '{"type":"close_room","endpoint":"/ws/chat","room":"a","reason":7,"request":5}': "reason must be a text, not 7",
    '{"type":"send","endpoint":"/ws/chat","message":"b","request":5}': "a message is for a session or for a user",
    '{"type":"send","endpoint":"/ws/chat","session":"x","message":"b","request":5}': "the session 'x' has ended",
    '{"type":"close","session":"x","code":999,"request":5}': "code must be a whole number from 1000 to 4999, not 999",
    '{"type":"close","session":"x","request":5}': "the session 'x' has ended",
    '{"type":"broadcast","endpoint":"/ws/none","room":"a","message":"b","request":5}': "no endpoint '/ws/none'",
    '{"type":"broadcast","endpoint":"/ws/chat","room":"","message":"b","request":5}': "a room name",
    '{"type":"broadcast","endpoint":"/ws/chat","room":"a","request":5}': "message must be a text, not nothing",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=[complaint[:40] for complaint in BAD.values()])
def test_mistakes_are_answered_in_words(viewer, text):
    viewer.socket.send(text)
    answer = viewer.next("answer")
    assert answer["text"].startswith(BAD[text])
    assert answer["ok"] is False
    assert answer["request"] == (5 if '"request":5' in text else None)
    assert viewer.ask(type="unwatch", list="rooms")["ok"]  # and the page goes on


def test_binary_is_answered_in_words(viewer):
    viewer.socket.send(b"{}")
    assert viewer.next("answer")["text"] == "a request must be JSON text, not binary"


def test_codes_and_reasons_that_may_not_be_sent_are_answered_in_words(viewer, people):
    people(ann="lobby")
    session_id = viewer.watch("sessions")["rows"][0]["id"]
    answer = viewer.ask(type="close", session=session_id, code=1006)
    assert (answer["ok"], answer["text"][:33]) == (False, "close code 1006 must not be sent:")
    answer = viewer.ask(type="close", session=session_id, reason="x" * 124)
    assert (answer["ok"], answer["text"][:32]) == (False, "a close reason may have at most ")


# Events


def test_what_a_python_handler_raises_comes_with_its_line(viewer, people):
    people(ann="lobby")["ann"].send("fail")
    event = viewer.event(lambda event: event["kind"] == "error")
    session_id = viewer.watch("sessions")["rows"][0]["id"]
    assert event["text"] == f"Chat.on_message failed in session {session_id}: LookupError: nothing there"
    assert (event["level"], event["endpoint"], event["session"]) == ("error", "/ws/chat", session_id)
    assert (event["file"], event["line"]) == (__file__, LINE)
    assert event["detail"].endswith("LookupError: nothing there")


def test_what_is_raised_below_a_python_handler_comes_with_the_handler_s_line(viewer, people):
    people(ann="lobby")["ann"].send("warn")
    event = viewer.event(lambda event: event["kind"] == "error")
    assert "MessageTypeError" in event["text"]
    assert event["file"] == __file__


SCRIPT = """\
export function onMessage(session, message) {
  console.log("got", { message });
    throw new TypeError("not this");
}
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "echo.js").write_text(SCRIPT)
    return tmp_path / "echo.js"


@pytest.fixture
def scripted(serve, script, caplog):
    """A server with a script, a viewer of it, and one of its clients, which has sent a message."""
    caplog.set_level("INFO", "wsthreads.script")
    app = WebSocketApp(dashboard=Dashboard())
    app.add_script("/ws/echo", script)
    server = serve(app)
    with Viewer(server.ws_url) as viewer, connect(server.ws_url + "/ws/echo") as client:
        client.send("x")
        yield viewer


def test_what_a_script_throws_comes_with_line_and_column(scripted):
    event = scripted.event(lambda event: event["kind"] == "error")
    session_id = scripted.watch("sessions")["rows"][0]["id"]
    assert event["text"] == f"onMessage failed in session {session_id}: TypeError: not this"
    assert (event["level"], event["endpoint"], event["session"]) == ("error", "/ws/echo", session_id)
    assert (event["file"], event["line"], event["column"]) == ("echo.js", 3, 15)
    assert event["detail"] == "    at onMessage (echo.js:3:15)"


def test_what_a_script_writes_to_the_console_comes_with_its_place(scripted):
    event = scripted.event(lambda event: event["kind"] == "console")
    assert event["text"] == "got { message: 'x' }"
    assert (event["level"], event["endpoint"], event["file"], event["line"]) == ("info", "/ws/echo", "echo.js", 2)
    assert event["detail"] is None


def test_who_comes_later_gets_the_last_events(viewer, server, people):
    ann = people(ann="lobby")["ann"]
    ann.send("fail")
    first = viewer.event(lambda event: event["kind"] == "error")
    with Viewer(server.ws_url) as another:
        message = another.next("events")
        assert message["events"][-1] == first
        assert message["dropped"] == 0
        ann.send("fail")
        assert another.event(lambda event: event["n"] > first["n"])["kind"] == "error"


class CountingDashboard(Dashboard):
    """Counts how often the thread for viewers goes round."""

    rounds = 0

    def _specification(self):
        self.rounds += 1
        return super()._specification()


def test_a_flood_of_events_comes_in_few_messages_and_keeps_the_thread_no_busier(serve, caplog):
    caplog.set_level("INFO", "wsthreads.script")
    log = logging.getLogger("wsthreads.script.flood")
    dashboard = CountingDashboard()
    server = serve(WebSocketApp(dashboard=dashboard))
    with Viewer(server.ws_url) as viewer:
        viewer.next("events")  # what there was before, of which nothing counts as dropped
        began, rounds = time.monotonic(), dashboard.rounds
        for number in range(20_000):
            log.info("%d", number)
        log.error("the last")
        messages = received = dropped = 0
        while True:
            message = viewer.next("events")
            messages += 1
            received, dropped = received + len(message["events"]), dropped + message["dropped"]
            if any(event["text"] == "the last" for event in message["events"]):
                break
        took_s = time.monotonic() - began
        assert received + dropped == 20_001
        assert received <= KEPT * messages
        assert messages <= 2 + took_s / EVENTS_INTERVAL_S
        assert dashboard.rounds - rounds <= 10 + 30 * took_s


class Loud:
    def on_message(self, session, message):
        session.send(message)
        raise ValueError("\x01" * 10_000)  # six characters each, in JSON


def test_many_long_errors_come_in_messages_that_fit(serve):
    app = WebSocketApp(dashboard=Dashboard())
    app.add_handler("/ws/loud", Loud)
    server = serve(app)
    with connect(server.ws_url + "/ws/loud") as client:
        for _ in range(60):
            client.send("x")
            receive(client)
        wait_until(lambda: app._dashboard._events.newest == 60, "all errors")
        with Viewer(server.ws_url) as viewer:
            events = []
            while len(events) < 60:
                message = viewer.next("events")
                assert len(json.dumps(message)) < 2_000_000
                events += message["events"]
        assert [event["n"] for event in events] == list(range(1, 61))


def test_reloads_are_told_good_and_bad(serve, script):
    app = WebSocketApp(dashboard=Dashboard(logger=""))
    app.add_script("/ws/echo", script)
    target = Target("/ws/echo", script)
    reloader = Reloader(app, lambda: [target], lambda: pytest.fail("restarted"), check_arguments=())
    with Viewer(serve(app).ws_url) as viewer:
        script.write_text("export function onOpen() {\n  let 7;\n}")
        reloader._look()
        event = viewer.event(lambda event: event["kind"] == "reload")
        assert event["level"] == "error"
        assert event["text"].startswith("echo.js not reloaded, the old code goes on: ")
        assert (event["endpoint"], event["file"], event["line"]) == ("/ws/echo", str(script), 2)
        assert viewer.hello["endpoints"][0]["functions"] == ["onMessage"]
        script.write_text("export function onOpen() {} // mended")
        reloader._look()
        assert viewer.next("hello")["endpoints"][0]["functions"] == ["onOpen"]


def test_a_good_reload_is_told(serve, script, caplog):
    caplog.set_level("INFO", "wsthreads.cli.reloader")
    app = WebSocketApp(dashboard=Dashboard())
    app.add_script("/ws/echo", script)
    target = Target("/ws/echo", script)
    reloader = Reloader(app, lambda: [target], lambda: pytest.fail("restarted"), check_arguments=())
    with Viewer(serve(app).ws_url) as viewer:
        script.write_text("export function onOpen() {}")
        reloader._look()
        event = viewer.event(lambda event: event["kind"] == "reload")
        assert (event["level"], event["text"], event["endpoint"]) == ("info", "echo.js reloaded", "/ws/echo")


# Slow viewers


class Crowd:
    def on_open(self, session):
        for number in range(5):
            session.room(f"{number} " + "a long name, " * 15).join()
        session.send("hi")


def test_a_viewer_that_does_not_read_is_sent_no_more_than_fits_and_nobody_waits_for_it(serve):
    app = WebSocketApp(dashboard=Dashboard())
    app.add_handler("/ws/crowd", Crowd)
    server = serve(app)
    with ExitStack() as stack:
        for _ in range(40):
            receive(stack.enter_context(connect(server.ws_url + "/ws/crowd")))
        sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # little room for what it does not read
        sock.connect(("127.0.0.1", server.port))
        slow_viewer = stack.enter_context(Viewer(server.ws_url, sock=sock, max_queue=1))
        connection = next(iter(app._dashboard.endpoint.live().values()))
        viewer = stack.enter_context(Viewer(server.ws_url))

        for _ in range(100):
            slow_viewer.send(type="watch", list="sessions", limit=500)
            viewer.watch("rooms")  # which is done behind it
            if connection.channel.outbox.is_blocked:
                break
        assert connection.channel.outbox.is_blocked
        before = connection.channel.outbox.bytes_waiting
        slow_viewer.send(type="watch", list="rooms")
        for _ in range(2):
            assert viewer.next("sample")["endpoints"]["/ws/crowd"]["sessions"] == 40
        assert connection.channel.outbox.bytes_waiting <= before + 1000  # answers alone
        assert connection.channel.ending is None
        assert slow_viewer.next("rooms")["matched"] == 5  # it reads again, and is sent what it has missed
        assert slow_viewer.ask(type="unwatch", list="rooms")["ok"]
