"""What rooms hold, on the page's socket: histories, attributes, owners. Contents of messages only when asked for."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack

import pytest

from tests.dashboard.test_workers import Others
from tests.dashboard_viewer import Viewer
from tests.ports import free_port
from tests.programs import DEADLINE_S, connect, receive, wait_until
from wsthreads import WebSocketApp
from wsthreads.dashboard import Dashboard
from wsthreads.dashboard.requests import Watch
from wsthreads.dashboard.room_state import MAX_CHARS
from wsthreads.dashboard.workers import Workers


class Table:
    tick_rate = 20

    def __init__(self):
        self.handling, self.go_on, self.ticked = threading.Event(), threading.Event(), threading.Event()

    def on_open(self, session):
        session.room("table").join()
        session.send("hi")

    def on_tick(self, room, dt):
        self.ticked.set()

    def on_post(self, room, value, sender):
        self.handling.set()
        self.go_on.wait(DEADLINE_S)


class Chat:
    def on_open(self, session):
        session.room("lobby").join()
        session.send("hi")


GAME, CHAT = {"endpoint": "/ws/game"}, {"endpoint": "/ws/chat"}


@pytest.fixture
def table():
    table = Table()
    yield table
    table.go_on.set()


@pytest.fixture
def app(table):
    app = WebSocketApp(dashboard=Dashboard(), history_messages=100)
    app.add_handler("/ws/game", table)
    app.add_handler("/ws/chat", Chat)
    return app


@pytest.fixture
def server(serve, app):
    return serve(app)


@pytest.fixture
def come(server):
    with ExitStack() as stack:

        def connected(path):
            client = stack.enter_context(connect(f"{server.ws_url}{path}", close_timeout=0.5))
            assert receive(client) == "hi"
            return client

        yield connected


@pytest.fixture
def viewer(server, caplog):
    caplog.set_level(logging.INFO, "wsthreads.dashboard")
    with Viewer(server.ws_url) as viewer:
        yield viewer


def answer(viewer, **request):
    found = viewer.ask(**request)
    return found["ok"], found["text"]


def state(viewer, room, **more):
    return viewer.watch("room_state", room=room, **more)


def test_the_history_of_a_room_has_times_and_sizes_and_no_contents(app, viewer, come):
    come("/ws/chat")
    room = app.endpoint("/ws/chat").room("lobby")
    for message in ("one", "süß", b"\0\1"):
        room.broadcast(message)
    room.broadcast("not kept", keep=False)
    message = state(viewer, "lobby", **CHAT)
    history = message["history"]
    assert (history["messages"], history["bytes"], history["is_all"]) == (3, 3 + 5 + 2, True)
    assert [(row["bytes"], row["is_text"]) for row in history["rows"]] == [(2, False), (5, True), (3, True)]
    assert history["rows"][0]["at"] >= history["rows"][2]["at"] > 1.7e9
    assert "süß" not in str(message)
    assert len(state(viewer, "lobby", **CHAT, limit=2)["history"]["rows"]) == 2
    room.broadcast("more")
    viewer.next("room_state", lambda message: message["history"]["messages"] == 4)
    assert [row["history"] for row in viewer.watch("rooms")["rows"]] == [4]


def test_the_content_of_a_message_is_read_on_request_and_that_is_logged(app, viewer, come, caplog):
    come("/ws/chat")
    room = app.endpoint("/ws/chat").room("lobby")
    for message in ("one", b"\0\xff", "x" * (MAX_CHARS + 1), b"y" * MAX_CHARS, ""):
        room.broadcast(message)
    numbers = [row["number"] for row in state(viewer, "lobby", **CHAT)["history"]["rows"]][::-1]

    def read(number, path="/ws/chat", name="lobby"):
        return answer(viewer, type="read_message", endpoint=path, room=name, number=number)

    assert read(numbers[0]) == (True, "one")
    assert read(numbers[1]) == (True, "00 ff")
    assert read(numbers[2]) == (True, "x" * MAX_CHARS + f"… ({MAX_CHARS + 1} characters)")
    assert read(numbers[3])[1].endswith(f"79 79… ({MAX_CHARS} bytes)")
    assert read(numbers[4]) == (True, "")
    assert "message 1 of room lobby of /ws/chat was read on the page by a viewer at 127.0.0.1" in caplog.text
    assert read(1000) == (False, "message 1000 is no longer in the history of the room")
    assert read(1, name="cellar") == (False, "message 1 is no longer in the history of the room")
    assert read(0) == (False, "number must be a whole number from 1 to 10000000000000000, not 0")
    assert read("1")[0] is False
    assert read(1, path="/ws/none")[1].startswith("no endpoint '/ws/none'")
    assert caplog.text.count("was read on the page") == 5


def test_attributes_are_shown_but_for_secrets(app, viewer, come):
    come("/ws/chat")
    assert state(viewer, "lobby", **CHAT)["attributes"] == {"count": 0, "bytes": 0, "rows": []}
    room = app.endpoint("/ws/chat").room("lobby")
    room.set_attribute("score", {"ann": 3, "token": "sesame"})
    room.set_attribute("api_key", "sesame")
    found = state(viewer, "lobby", **CHAT)["attributes"]
    assert found["count"] == 2
    assert found["bytes"] > 30
    assert found["rows"] == [
        {"key": "api_key", "value": "hidden (8 characters)"},
        {"key": "score", "value": '{"ann": 3, "token": "hidden (6 characters)"}'},
    ]
    for n in range(150):
        room.set_attribute(f"a{n:03}", n)
    found = viewer.next("room_state", lambda message: message["attributes"]["count"] == 152)["attributes"]
    assert len(found["rows"]) == 100


def test_the_owner_of_a_room_its_lag_and_its_posts_are_shown(app, table, viewer, come):
    assert state(viewer, "table", **GAME)["owner"] is None
    come("/ws/game")
    assert table.ticked.wait(DEADLINE_S)
    message = viewer.next("room_state", lambda message: message["owner"] is not None)
    assert message["is_owned"]
    owner = message["owner"]
    assert owner["pid"] == viewer.hello["pid"]
    assert owner["host"] == viewer.hello["host"]
    assert owner["fencing_number"] > 1.7e12
    assert owner["posts_waiting"] == 0
    viewer.next("room_state", lambda message: message["owner"]["tick_lag_s"] is not None)
    room = app.endpoint("/ws/game").room("table")
    for n in range(3):
        room.post(n, wait=False)
    assert table.handling.wait(DEADLINE_S)
    viewer.next("room_state", lambda message: message["owner"]["posts_waiting"] == 2)
    [row] = viewer.watch("rooms")["rows"]
    assert (row["owner"]["fencing_number"], row["owner"]["posts_waiting"]) == (owner["fencing_number"], 2)
    table.go_on.set()
    viewer.next("rooms", lambda message: message["rows"][0]["owner"]["posts_waiting"] == 0)


def test_a_room_of_a_handler_without_such_functions_has_no_owner(viewer, come):
    come("/ws/chat")
    message = state(viewer, "lobby", **CHAT)
    assert (message["is_owned"], message["owner"]) == (False, None)
    assert "owner" not in viewer.watch("rooms")["rows"][0]


def test_a_room_that_is_not_there_holds_nothing(viewer):
    message = state(viewer, "cellar", **CHAT)
    assert (message["attributes"]["count"], message["history"]["messages"], message["owner"]) == (0, 0, None)
    assert state(viewer, "cellar", endpoint="/ws/none")["history"] is None
    assert answer(viewer, type="watch", list="room_state", endpoint="/ws/chat") == (
        False, "room must be a text, not nothing"
    )  # fmt: skip


def test_without_a_history_there_is_none(serve):
    app = WebSocketApp(dashboard=Dashboard())
    app.add_handler("/ws/chat", Chat)
    server = serve(app)
    with Viewer(server.ws_url) as viewer, connect(f"{server.ws_url}/ws/chat") as client:
        assert receive(client) == "hi"
        assert state(viewer, "lobby", **CHAT)["history"] is None
        assert "history" not in viewer.watch("rooms")["rows"][0]


def test_while_redis_is_away_the_page_says_what_it_does_not_know(serve):
    url = f"redis://127.0.0.1:{free_port()}"
    app = WebSocketApp(redis=url, dashboard=Dashboard(), history_messages=10)
    app.add_handler("/ws/game", Table())
    server = serve(app)
    with Viewer(server.ws_url) as viewer, connect(f"{server.ws_url}/ws/game") as client:
        assert receive(client) == "hi"
        message = state(viewer, "table", **GAME)
        assert (message["is_owned"], message["owner"]) == (True, None)
        for part in ("attributes", "history"):
            assert url in message[part]["error"]
        is_ok, text = answer(viewer, type="read_message", **GAME, room="table", number=1)
        assert not is_ok
        assert url in text
        [row] = viewer.watch("rooms")["rows"]
        assert (row["members"], row["history"]) == (1, 0)


@pytest.fixture
def two(serve):
    """Two apps that ask each other, with a client in the second: (workers, tables)."""
    links, apps, tables = [Others(), Others()], [], [Table(), Table()]
    for table in tables:
        app = WebSocketApp(history_messages=10)
        app.add_handler("/ws/game", table)
        apps.append(app)
    servers = [serve(app) for app in apps]
    workers = [Workers(lambda app=app: app.endpoints, link) for app, link in zip(apps, links, strict=True)]
    links[0].processes = [(11, "here", links[1])]
    links[1].processes = [(10, "there", links[0])]
    with connect(f"{servers[1].ws_url}/ws/game") as client:
        assert receive(client) == "hi"
        wait_until(lambda: apps[1].endpoint("/ws/game").ownership.states())
        yield workers, apps


def test_the_owner_may_be_another_process(two):
    workers, apps = two
    watch = Watch(1, "room_state", endpoint="/ws/game", room="table")
    message = workers[0].list(watch)
    assert (message["owner"]["pid"], message["owner"]["host"], message["processes"]) == (11, "here", 2)
    assert message["history"]["messages"] == 0
    apps[1].endpoint("/ws/game").room("table").broadcast("hello")
    [row] = workers[0].list(Watch(1, "rooms"))["rows"]
    assert (row["members"], row["history"], row["owner"]["pid"]) == (1, 1, 11)


def test_of_two_processes_that_say_so_the_later_owner_counts(two, serve):
    workers, apps = two
    other = serve(apps[0])
    with connect(f"{other.ws_url}/ws/game") as client:
        assert receive(client) == "hi"
        first = apps[0].endpoint("/ws/game").ownership
        wait_until(lambda: first.states())
        newest = first.states()["table"].fencing_number
        assert newest > apps[1].endpoint("/ws/game").ownership.states()["table"].fencing_number
        for watcher in workers:
            message = watcher.list(Watch(1, "room_state", endpoint="/ws/game", room="table"))
            assert message["owner"]["fencing_number"] == newest
            [row] = watcher.list(Watch(1, "rooms"))["rows"]
            assert (row["members"], row["owner"]["fencing_number"]) == (2, newest)
