"""Rooms that remember, in both languages, in one process and over Redis: what a client sees is the same."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from tests.programs import DEADLINE_S, connect, receive, wait_until
from wsthreads import RedisBroker, WebSocketApp
from wsthreads.cli.targets import Target, add_target

JAVASCRIPT = """import { room as anyRoom } from "wsthreads";
export const tickRate = 50;
const uses = {
  join: (room, options) => { const { joined, complete } = room.join(options); return [joined, complete]; },
  leave: (room) => room.leave(),
  say: (room, message, options) => room.broadcast(message, options),
  except: (room, message, options) => room.broadcastExcept(message, options),
  bytes: (room, bytes) => room.broadcast(new Uint8Array(bytes)),
  history: (room, count) => room.history(count).map((one) => typeof one === "string" ? one : [...new Uint8Array(one)]),
  since: (room) => room.position(),
  set: (room, key, value) => room.setAttribute(key, value),
  get: (room, key) => room.getAttribute(key),
  all: (room) => room.getAttributes(),
  add: (room, key, by) => room.updateAttribute(key, (value = 0) => value + by),
  delete: (room, key) => room.deleteAttribute(key),
  post: (room, value) => room.post(value).then(() => "handled"),
  postFromNobody: (room, value) => anyRoom(room.getName()).post(value).then(() => "handled"),
};
export function onHandshake(request) { request.setUser(request.getParameter("user")); }
export async function onMessage(session, message) {
  const [use, name, ...rest] = JSON.parse(message);
  let answer;
  try {
    answer = { result: (await uses[use](session.room(name), ...rest)) ?? null };
  } catch (error) {
    answer = { error: error.message };
  }
  if (session.isOpen()) session.send(JSON.stringify(answer));
}
let state = {};
export function onRoomStart(room) { state[room.getName()] = { ticks: 0, posts: [] }; }
export function onPost(room, value, from) {
  const { posts, ticks } = state[room.getName()];
  if (value === "throw") throw new Error("thrown");
  posts.push([value, from === null ? null : from.user]);
  const told = { posts, ticks, fence: room.fencingNumber, owner: room.isOwner() };
  if (value === "tell") room.broadcast(JSON.stringify(told));
}
export function onTick(room, dt) { state[room.getName()].ticks++; }
export function onRoomEnd(room) {
  if (room.isOwner()) room.setAttribute("state", state[room.getName()].posts.length);
}
"""

PYTHON = """import json
tick_rate = 50
def handled(room, value):
    room.post(value)
    return "handled"
def plain(message):
    return message if isinstance(message, str) else list(message)
NAMES = {"maxMembers": "max_members"}
def named(options):
    return {NAMES.get(name, name): value for name, value in (options or {}).items()}
uses = {
    "join": lambda room, options=None: list(room.join(**named(options))),
    "leave": lambda room: room.leave(),
    "say": lambda room, message, options=None: room.broadcast(message, **named(options)),
    "except": lambda room, message, options=None: room.broadcast_except(message, **named(options)),
    "bytes": lambda room, data: room.broadcast(bytes(data)),
    "history": lambda room, count: [plain(message) for message in room.history(count)],
    "since": lambda room: room.position(),
    "set": lambda room, key, value: room.set_attribute(key, value),
    "get": lambda room, key: room.get_attribute(key),
    "all": lambda room: room.attributes(),
    "add": lambda room, key, by: room.update_attribute(key, lambda value: (value or 0) + by),
    "delete": lambda room, key: room.delete_attribute(key) and None,
    "post": handled,
}
def on_handshake(request):
    request.user = request.get_parameter("user")
def on_message(session, message):
    use, name, *rest = json.loads(message)
    try:
        if use == "postFromNobody":
            answer = {"result": handled(session.endpoint.room(name), *rest)}
        else:
            answer = {"result": uses[use](session.room(name), *rest)}
    except Exception as error:
        answer = {"error": str(error)}
    if session.is_open():
        session.send(json.dumps(answer))
state = {}
def on_room_start(room):
    state[room.name] = {"ticks": 0, "posts": []}
def on_post(room, value, sender):
    here = state[room.name]
    if value == "throw":
        raise RuntimeError("thrown")
    here["posts"].append([value, None if sender is None else sender.user])
    if value == "tell":
        told = {"posts": here["posts"], "ticks": here["ticks"], "fence": room.fencing_number, "owner": room.is_owner()}
        room.broadcast(json.dumps(told))
def on_tick(room, dt):
    state[room.name]["ticks"] += 1
def on_room_end(room):
    if room.is_owner():
        room.set_attribute("state", len(state[room.name]["posts"]))
"""


class World:
    """Servers that share their rooms. Clients connect to them in turn."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self._next = 0

    @contextmanager
    def clients(self, count: int, **query: str) -> Iterator[list[ClientConnection]]:
        with ExitStack() as stack:
            clients = []
            for _ in range(count):
                url = self.urls[self._next % len(self.urls)]
                self._next += 1
                query_text = "&".join(f"{name}={value}" for name, value in query.items())
                clients.append(stack.enter_context(connect(f"{url}/ws/rooms?{query_text}")))
            yield clients


@pytest.fixture(params=["script.js", "handler.py"])
def handler(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_text(JAVASCRIPT if path.suffix == ".js" else PYTHON)
    return path


@pytest.fixture(params=["memory", "redis"])
def world(request: pytest.FixtureRequest, handler: Path, serve: Callable[..., Any]) -> World:
    urls = []
    prefix = f"rooms-{random.randrange(2**32)}"
    for _ in range(1 if request.param == "memory" else 2):
        settings: dict[str, Any] = {"history_messages": 20}
        if request.param == "redis":
            settings["broker"] = RedisBroker(request.getfixturevalue("redis_server").url, prefix=prefix)
        app = WebSocketApp(**settings)
        add_target(app, Target("/ws/rooms", handler))
        urls.append(serve(app).ws_url)
    return World(urls)


def ask(client: ClientConnection, *request: Any) -> Any:
    """What the use returned. Broadcasts that come before are dropped."""
    answer, _ = heard(client, *request)
    assert "error" not in answer, answer
    return answer["result"]


def error_of(client: ClientConnection, *request: Any) -> str:
    answer, _ = heard(client, *request)
    error: str = answer["error"]
    return error


def heard(client: ClientConnection, *request: Any) -> tuple[Any, list[Any]]:
    """The answer, and the messages that came before it."""
    client.send(json.dumps(request))
    messages: list[Any] = []
    while not (isinstance(message := receive(client), str) and message.startswith(('{"result"', '{"error"'))):
        messages.append(message)
    return json.loads(message), messages


def test_a_joiner_gets_the_history_then_everything(world: World) -> None:
    with world.clients(3) as (ann, bob, eve):
        ask(ann, "join", "r")
        for number in range(5):
            ask(ann, "say", "r", f"{number}")
        ask(ann, "bytes", "r", [0, 255])
        ask(ann, "say", "r", "not kept", {"keep": False})
        wait_until(lambda: ask(ann, "history", "r", 2) == ["4", [0, 255]])
        position = ask(ann, "since", "r")
        ask(ann, "say", "r", "later")
        assert heard(bob, "join", "r", {"history": 3}) == ({"result": [True, True]}, ["4", b"\0\xff", "later"])
        assert heard(eve, "join", "r", {"since": position}) == ({"result": [True, True]}, ["later"])
        ask(ann, "except", "r", "to others")
        assert (receive(bob), receive(eve)) == ("to others", "to others")
        ask(eve, "leave", "r")
        assert heard(eve, "join", "r", {"since": "none of ours", "history": 1}) == (
            {"result": [True, False]},
            ["to others"],
        )


def test_as_many_as_may_get_in(world: World) -> None:
    with world.clients(8) as clients, ThreadPoolExecutor(8) as pool:
        for number in range(5):
            request = ("join", f"r{number}", {"maxMembers": 3})
            joined = list(pool.map(ask, clients, *([part] * len(clients) for part in request)))
            assert sorted(joined) == [[False, False]] * 5 + [[True, True]] * 3


def test_updates_of_all_are_counted_once(world: World) -> None:
    with world.clients(6) as clients, ThreadPoolExecutor(6) as pool:

        def add(client: ClientConnection) -> None:
            ask(client, "join", "r")
            for _ in range(20):
                ask(client, "add", "r", "n", 1)

        list(pool.map(add, clients))
        assert [ask(client, "get", "r", "n") for client in clients] == [120] * 6


def test_attributes_are_seen_by_all(world: World) -> None:
    with world.clients(2) as (ann, bob):
        ask(ann, "join", "r")
        ask(ann, "set", "r", "k", {"a": ["ü 😀", 1.5, None]})
        assert ask(bob, "get", "r", "k") == {"a": ["ü 😀", 1.5, None]}
        ask(bob, "set", "r", "other", None)
        assert ask(ann, "all", "r") == {"k": {"a": ["ü 😀", 1.5, None]}, "other": None}
        ask(bob, "delete", "r", "k")
        ask(bob, "delete", "r", "k")
        assert ask(ann, "get", "r", "k") is None


def test_posts_come_to_one_owner_once_and_in_order_of_each_poster(world: World) -> None:
    with world.clients(1) as (owner,), world.clients(4, user="ann") as clients, ThreadPoolExecutor(4) as pool:
        ask(owner, "join", "r")

        def post(client: ClientConnection) -> None:
            for number in range(25):
                assert ask(client, "post", "r", [clients.index(client), number]) == "handled"

        list(pool.map(post, clients))
        assert ask(owner, "postFromNobody", "r", 0) == "handled"
        assert ask(owner, "post", "r", "throw") == "handled", "its failure is the owner's"
        _, messages = heard(owner, "post", "r", "tell")
        told = json.loads(messages[-1] if messages else receive(owner))
        posts = told["posts"]
        assert posts[-2:] == [[0, None], ["tell", None]]
        assert told["owner"] is True
        assert told["fence"] > 1.7e12
        assert len(posts) == 102
        for index in range(4):
            mine = [post for post in posts[:-2] if post[0][0] == index]
            assert mine == [[[index, number], "ann"] for number in range(25)]


def test_a_post_to_nobody_is_an_error(world: World) -> None:
    with world.clients(1) as (ann,):
        assert "the room has no members" in error_of(ann, "post", "empty", 1)
        assert "the room has no members" in error_of(ann, "postFromNobody", "empty", 1)


def test_an_owner_ticks_and_leaves_what_the_next_one_needs(world: World) -> None:
    def told(client: ClientConnection) -> Any:
        _, messages = heard(client, "post", "r", "tell")
        return json.loads(messages[-1] if messages else receive(client))

    with world.clients(2) as (ann, bob):
        ask(ann, "join", "r")
        wait_until(lambda: told(ann)["ticks"] >= 3)
        before = told(ann)
        ask(ann, "leave", "r")
        wait_until(lambda: ask(bob, "get", "r", "state") == len(before["posts"]))
        ask(bob, "join", "r")
        wait_until(lambda: ask(bob, "post", "r", "x") == "handled")
        after = told(bob)
        assert after["fence"] > before["fence"]
        assert [post[0] for post in after["posts"]][-2:] == ["x", "tell"]


WRONG_OF_HISTORY: list[tuple[list[Any], list[str]]] = [
    (["join", "r", {"history": -1}], ["history", "20", "-1"]),
    (["join", "r", {"history": 10**9}], ["20", "1000000000"]),
    (["join", "r", {"history": 1.5}], ["20", "1.5"]),
    (["join", "r", {"since": 5}], ["since"]),
    (["history", "r", 21], ["20", "21"]),
]
WRONG: list[tuple[list[Any], list[str]]] = [
    (["join", "r", {"maxMembers": 0}], ["1000000", "0"]),
    (["join", "r", {"maxMembers": -1}], ["1000000", "-1"]),
    (["join", "r", {"maxMembers": 10**7}], ["1000000", "10000000"]),
    (["say", "r", "x", {"keep": 0}], ["keep", "0"]),
    (["say", "r", "x", {"latest": ""}], ["1 to 256 characters"]),
    (["say", "r", "x", {"latest": "k" * 257}], ["1 to 256 characters", "257"]),
    (["set", "r", "k", "x" * 65536], ["65536", "max_room_bytes"]),
    (["set", "r", "", 1], ["1 to 256 characters"]),
    (["set", "r", "k" * 257, 1], ["1 to 256 characters", "257"]),
    (["set", "r", 7, 1], ["key"]),
    (["post", "r", "x" * 65536], ["65536", "max_post_bytes"]),
]


def test_a_wrong_value_is_one_clear_error_and_nothing_has_happened(world: World) -> None:
    with world.clients(2) as (ann, member):
        ask(member, "join", "r")
        for request, parts in WRONG:
            message = error_of(ann, *request)
            assert all(part in message for part in parts), message
            assert len(message) < 300
        assert ask(ann, "all", "r") == {}
        wait_until(lambda: ask(ann, "post", "r", "x") == "handled")
        assert heard(member, "post", "r", "x")[1] == []


def test_a_wrong_number_of_messages_or_position_is_one_clear_error(world: World) -> None:
    with world.clients(1) as (ann,):
        for request, parts in WRONG_OF_HISTORY:
            message = error_of(ann, *request)
            assert all(part in message for part in parts), message
            assert len(message) < 300
        assert ask(ann, "join", "r", {"maxMembers": 1}) == [True, True], "it is not in the room yet"


def test_two_in_a_race_for_an_empty_room_start_it_once(world: World) -> None:
    with world.clients(4) as clients, ThreadPoolExecutor(4) as pool:
        gate = threading.Barrier(4)

        def enter(client: ClientConnection) -> str:
            gate.wait(DEADLINE_S)
            ask(client, "join", "r")
            answer: str = ask(client, "post", "r", "x")
            return answer

        assert list(pool.map(enter, clients)) == ["handled"] * 4
        _, messages = heard(clients[0], "post", "r", "tell")
        told = json.loads(messages[-1] if messages else receive(clients[0]))
        assert len(told["posts"]) == 5
