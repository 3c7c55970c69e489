"""Users, handles and presence in scripts over Redis: two apps, which Redis takes for two processes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.programs import connect, receive, wait_until
from tests.redis_proxy import Proxy
from wsthreads import RedisBroker, WebSocketApp

SOURCE = """import { room, session as peer, sessions, user } from "wsthreads";
const handles = { room, peer, user };
export function onHandshake(request) { request.setUser(request.getParameter("user")); }
export function onOpen(session) {
  if (session.user !== "outside") session.room("lobby").join({ presence: { name: session.user } });
  session.send(session.id);
}
export function onMessage(session, message) {
  const [kind, name, method, ...values] = JSON.parse(message);
  const result = kind === "here" ? sessions().length : handles[kind](name)[method](...values);
  session.send(JSON.stringify({ answer: result ?? null }));
}
export function onPresence(room, { joined, left }) {
  const names = (persons) => persons.map((person) => person.user);
  return JSON.stringify({ joined: names(joined), left: names(left) });
}
"""


class Workers:
    """Each of the `urls` is the Redis of one."""

    def __init__(self, serve: Callable[..., Any], urls: list[str], folder: Path) -> None:
        script = folder / "script.js"
        script.write_text(SOURCE)
        prefix = f"users-{random.randrange(2**32)}"
        self.urls: list[str] = []
        self.apps: list[WebSocketApp] = []
        for url in urls:
            app = WebSocketApp(broker=RedisBroker(url, prefix=prefix), presence_grace_s=0.0)
            self.apps.append(app)
            app.add_script("/ws/u", script)
            self.urls.append(serve(app).ws_url + "/ws/u")


@pytest.fixture
def workers(serve: Callable[..., Any], redis_server: Any, tmp_path: Path) -> Workers:
    return Workers(serve, [redis_server.url] * 2, tmp_path)


class Client:
    """A client of one worker. Answers and everything else that it receives are kept apart."""

    def __init__(self, workers: Workers, worker: int, user: str, stack: Any) -> None:
        self.socket = stack.enter_context(connect(f"{workers.urls[worker]}?user={user}"))
        self.id = receive(self.socket)
        self.heard: list[Any] = []

    def ask(self, *request: Any) -> Any:
        self.socket.send(json.dumps(request))
        while True:
            message = receive(self.socket)
            if isinstance(message, str) and message.startswith('{"answer"'):
                return json.loads(message)["answer"]
            self.heard.append(message)

    def hear(self) -> Any:
        return self.heard.pop(0) if self.heard else receive(self.socket)

    def end(self) -> int | None:
        """The code with which the server closes the client."""
        with pytest.raises(ConnectionClosed):
            while True:
                receive(self.socket)
        return self.socket.close_code


@pytest.fixture
def client(workers: Workers) -> Iterator[Callable[[int, str], Client]]:
    with ExitStack() as stack:
        yield lambda worker, user: Client(workers, worker, user, stack)


def test_a_user_s_sessions_of_all_workers_are_reached(client: Callable[[int, str], Client]) -> None:
    outside, ann, bob, phone = (client(0, "outside"), client(1, "ann"), client(0, "bob"), client(1, "bob"))
    assert outside.ask("here") == 2
    outside.ask("user", "bob", "send", "private")
    outside.ask("room", "lobby", "broadcast", "to all")
    for device in (bob, phone):
        heard = [device.hear()]
        while heard[-1] != "to all":
            heard.append(device.hear())
        assert [message for message in heard if not str(message).startswith("{")] == ["private", "to all"]
    assert outside.ask("user", "ann", "isOnline") is True
    assert outside.ask("user", "eve", "isOnline") is False
    wait_until(lambda: len(outside.ask("user", "bob", "sessions")) == 2)
    found = outside.ask("user", "bob", "sessions")
    assert {entry["id"] for entry in found} == {bob.id, phone.id}
    assert found == sorted(found, key=lambda entry: entry["since"])
    assert outside.ask("peer", ann.id, "isOpen") is True
    assert outside.ask("peer", ann.id, "send", "you") is True
    while ann.hear() != "you":
        pass


def test_a_kick_and_a_ban_reach_all_workers(client: Callable[[int, str], Client], workers: Workers) -> None:
    outside, ann, bob, phone = (client(0, "outside"), client(1, "ann"), client(0, "bob"), client(1, "bob"))
    outside.ask("user", "bob", "close", 4003, "kicked", {"banS": 60})
    assert bob.end() == phone.end() == 4003

    def is_refused(url: str) -> bool:
        try:
            with connect(f"{url}?user=bob") as again, pytest.raises(ConnectionClosed):
                receive(again)  # it was let in before the ban reached this worker
            return False
        except InvalidStatus as error:
            return error.response.status_code == 403

    for url in workers.urls:
        wait_until(lambda url=url: is_refused(url))
    assert outside.ask("user", "bob", "isOnline") is False
    outside.ask("peer", ann.id, "close", 4001)
    assert ann.end() == 4001
    wait_until(lambda: outside.ask("peer", ann.id, "isOpen") is False)


def test_presence_is_that_of_all_workers_also_from_one_without_members(client: Callable[[int, str], Client]) -> None:
    outside, ann = client(0, "outside"), client(1, "ann")
    assert json.loads(ann.hear()) == {"joined": ["ann"], "left": []}
    wait_until(lambda: [person["user"] for person in outside.ask("room", "lobby", "presence")] == ["ann"])
    bob = client(0, "bob")
    told: list[str] = []
    while "bob" not in told:
        told += json.loads(ann.hear())["joined"]
    wait_until(lambda: len(bob.ask("room", "lobby", "presence")) == 2)
    persons = bob.ask("room", "lobby", "presence")
    assert [(person["user"], person["presence"], person["sessions"]) for person in persons] == [
        ("ann", {"name": "ann"}, 1),
        ("bob", {"name": "bob"}, 1),
    ]
    bob.socket.close()
    assert json.loads(ann.hear()) == {"joined": [], "left": ["bob"]}
    outside.ask("room", "lobby", "close", 4000)
    assert ann.end() == 4000


@pytest.mark.parametrize("break_off", [Proxy.cut, Proxy.swallow])
def test_while_redis_is_away_a_script_gets_answers_within_its_deadline(
    serve: Callable[..., Any], redis_server: Any, tmp_path: Path, break_off: Callable[[Proxy], None]
) -> None:
    with Proxy(redis_server.port) as proxy, ExitStack() as stack:
        workers = Workers(serve, [proxy.url, redis_server.url], tmp_path)
        ann, bob = (Client(workers, worker, user, stack) for worker, user in enumerate(("ann", "bob")))
        wait_until(lambda: ann.ask("user", "bob", "isOnline"))
        break_off(proxy)
        assert ann.ask("user", "ann", "isOnline") is True
        assert [session["id"] for session in ann.ask("user", "ann", "sessions")][:1] == [ann.id]
        assert ann.ask("peer", ann.id, "isOpen") is True
        for question in (
            ("user", "bob", "isOnline"), ("user", "eve", "isOnline"), ("user", "bob", "sessions"),
            ("peer", bob.id, "isOpen"), ("room", "lobby", "presence"), ("room", "empty", "presence"),
            ("room", "empty", "members"), ("peer", bob.id, "send", "hi"), ("user", "bob", "send", "hi"),
        ):  # fmt: skip
            ann.ask(*question)
        counts = workers.apps[0].endpoint("/ws/u").totals().counters
        assert not counts.get("script_timeouts")
        proxy.heal()
        wait_until(lambda: ann.ask("user", "bob", "isOnline"))
