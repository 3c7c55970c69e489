"""Users in scripts: `request.setUser`, `session.user`, `user()`, `session()`, and `room.close`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.javascript.test_engine import without_engine  # noqa: F401
from tests.programs import connect, receive, wait_until
from wsthreads import HandshakeRefused, RedisBroker, WebSocketApp
from wsthreads.testing import Play, play

SOURCE = """import { room, session as peer, user } from "wsthreads";
const handles = { room, peer, user };
export async function onHandshake(request) {
  const name = request.getParameter("user");
  if (request.getParameter("late")) await null;
  if (name !== null) request.setUser(name);
  if (request.getParameter("refuse")) return 402;
}
export function onOpen(session) { session.room("all").join(); }
export function onMessage(session, message) {
  if (message[0] !== "[") return session.send(`echo ${message}`);
  const [kind, name, method, ...values] = JSON.parse(message);
  let answer;
  try {
    answer = { result: kind === "user?" ? session.user : handles[kind](name)[method](...values) };
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  if (session.isOpen()) session.send(JSON.stringify(answer));
}
"""


@pytest.fixture(params=["script.js", "script.ts"])
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_text(SOURCE if path.suffix == ".js" else f"type Unused = any;\n{SOURCE}")
    return path


def ask(client: Any, *request: Any) -> Any:
    client.send(json.dumps(request))
    return json.loads(client.take()[-1]).get("result")


def error_of(client: Any, *request: Any) -> str:
    client.send(json.dumps(request))
    error: str = json.loads(client.take()[-1])["error"]
    return error


def test_a_session_has_the_user_of_its_handshake(script: Path) -> None:
    with play(script) as chat:
        ann, late, nobody = chat.connect(user="änn 😀"), chat.connect(user="bob", late="1"), chat.connect()
        assert [ask(client, "user?") for client in (ann, late, nobody)] == ["änn 😀", "bob", None]
        assert [client.session.user for client in (ann, late, nobody)] == ["änn 😀", "bob", None]
        assert chat.app.endpoints[0].user_count() == 2


def test_a_user_is_reached_on_all_devices(script: Path) -> None:
    with play(script) as chat:
        ann, bob, phone = chat.connect(user="ann"), chat.connect(user="bob"), chat.connect(user="bob")
        assert ask(ann, "user", "bob", "send", "hi") is None
        assert bob.take() == phone.take() == ["hi"]
        assert ask(ann, "user", "bob", "isOnline") is True
        assert ask(ann, "user", "eve", "isOnline") is False
        ask(ann, "user", "eve", "send", "hi")
        found = ask(ann, "user", "bob", "sessions")
        assert [entry["id"] for entry in found] == [bob.session.id, phone.session.id]
        assert [entry["since"] for entry in found] == [
            round(client.session.opened_at * 1000) for client in (bob, phone)
        ]
        ask(ann, "user", "bob", "close", 4003, "kicked")
        assert bob.wait_closed() == phone.wait_closed() == (4003, "kicked")
        assert ask(ann, "user", "bob", "isOnline") is False
        assert ask(ann, "user", "bob", "sessions") == []
        assert chat.connect(user="bob").is_open


def test_one_session_is_reached_by_its_id(script: Path) -> None:
    with play(script) as chat:
        ann, bob, phone = chat.connect(user="ann"), chat.connect(user="bob"), chat.connect(user="bob")
        assert ask(ann, "peer", bob.session.id, "send", "hi") is True
        assert ask(ann, "peer", bob.session.id, "isOpen") is True
        assert (bob.take(), phone.take()) == (["hi"], [])
        ask(ann, "peer", bob.session.id, "close", 4001)
        assert bob.wait_closed() == (4001, "")
        assert ask(ann, "peer", bob.session.id, "isOpen") is False
        assert ask(ann, "peer", bob.session.id, "send", "hi") is False
        assert ask(ann, "peer", bob.session.id, "close") is None
        assert ask(ann, "peer", "x" * 22, "isOpen") is False
        assert phone.is_open


def test_a_room_is_closed(script: Path) -> None:
    with play(script) as chat:
        ann, bob = chat.connect(), chat.connect()
        ann.send('["room", "nobody", "close"]')
        ann.send('["room", "all", "close", 4000, "over"]')
        assert ann.wait_closed() == bob.wait_closed() == (4000, "over")


def test_a_ban_refuses_the_user_for_its_time(script: Path) -> None:
    with play(script) as chat:
        ann, bob = chat.connect(user="ann"), chat.connect(user="bob")
        ask(ann, "user", "bob", "close", 4003, "kicked", {"banS": 60})
        assert bob.wait_closed() == (4003, "kicked")
        for seconds in (0, 59):
            chat.advance(seconds)
            for late in ("", "1"):
                with pytest.raises(HandshakeRefused, match="403 banned"):
                    chat.connect(user="bob", late=late)
        chat.advance(1)
        assert chat.connect(user="bob").is_open
        assert ask(ann, "user", "bob", "isOnline") is True


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (["user", "", "send", "x"], "RangeError: the name of a user has 1 to 256 characters, not 0"),
        (["user", "x" * 257, "isOnline"], "RangeError: the name of a user has 1 to 256 characters, not 257"),
        (["user", None, "send", "x"], "TypeError: the name of a user is a string, not null"),
        (["peer", 7, "isOpen"], "TypeError: a session id is a string, not a number"),
        (["peer", "", "isOpen"], "RangeError: a session id has 1 to 256 characters, not 0"),
        (["user", "ann", "send", {}], "TypeError: user.send takes a string, an ArrayBuffer or a typed array, not an O"),
        (["peer", "ann", "send", 7], "TypeError: session.send takes a string, an ArrayBuffer"),
        (["user", "ann", "close", 999], "999"),
        (["user", "ann", "close", "4000"], "TypeError: a close code is a whole number"),
        (["user", "ann", "close", 4000, 7], "TypeError: a close reason is a string"),
        (["user", "ann", "close", 4000, "x" * 124], "RangeError: "),
        (["user", "ann", "close", 4000, "", {"banS": -1}], "RangeError: banS must be a number of seconds from 0 to 31"),
        (["user", "ann", "close", 4000, "", {"banS": 1e9}], "RangeError: banS must be a number of seconds from 0 to"),
        (["user", "ann", "close", 4000, "", {"banS": "60"}], 'not "60"'),
        (["user", "ann", "close", 4000, "", {"ban": 60}], "TypeError: user.close takes the option banS, not ban"),
        (["user", "ann", "close", 4000, "", 60], "TypeError: user.close takes options such as { banS: … }, not a nu"),
        (["peer", "x", "close", 1006], "1006"),
        (["room", "all", "close", 1005], "1005"),
        (["room", "\0uann", "send", 1], "RangeError"),
    ],
)
def test_invalid_input_is_refused_and_nothing_has_happened(tmp_path: Path, request_: list[Any], error: str) -> None:
    script = tmp_path / "script.js"
    script.write_text(SOURCE)
    with play(script) as chat:
        ann = chat.connect(user="ann")
        answer = error_of(ann, *request_)
        if request_[:2] == ["room", "\0uann"]:
            answer = error_of(ann, "room", "\0uann", "broadcast", "x")
        assert error in answer
        assert ann.is_open
        chat.connect(user="ann")


@pytest.mark.parametrize("ban", ["NaN", "Infinity", "{}"])
def test_a_ban_that_json_does_not_know_is_refused(tmp_path: Path, ban: str) -> None:
    script = tmp_path / "script.js"
    script.write_text(
        f"""import {{ user }} from "wsthreads";
        export function onMessage(session) {{
          try {{ user("ann").close(4000, "", {{ banS: {ban} }}); }} catch (error) {{ session.send(error.message); }}
        }}"""
    )
    with play(script) as chat:
        ann = chat.connect()
        ann.send("?")
        assert ann.take() == [f"banS must be a number of seconds from 0 to 31536000, not {ban}"]


# setUser


def refused(tmp_path: Path, handshake: str) -> Play:
    script = tmp_path / "script.js"
    script.write_text(f"export async function onHandshake(request) {{ {handshake} }}")
    return play(script, raise_errors=False)


@pytest.mark.parametrize(
    ("handshake", "error"),
    [
        ("request.setUser('')", "RangeError: the name of a user has 1 to 256 characters, not 0"),
        ("request.setUser('x'.repeat(257))", 'characters, not 257: "xxxx'),
        ("request.setUser(7)", "TypeError: the name of a user is a string, not a number"),
        ("request.setUser()", "TypeError: the name of a user is a string, not undefined"),
    ],
)
def test_an_invalid_user_is_a_500(tmp_path: Path, handshake: str, error: str) -> None:
    with refused(tmp_path, handshake) as chat:
        with pytest.raises(HandshakeRefused, match="500"):
            chat.connect()
        assert error in str(chat.errors[0])


def test_the_last_user_counts_and_null_is_nobody(tmp_path: Path) -> None:
    with refused(tmp_path, "request.setUser('ann'); request.setUser(request.getParameter('user'));") as chat:
        assert chat.connect(user="bob").session.user == "bob"
        assert chat.connect().session.user is None


def test_after_the_handshake_it_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "script.js"
    script.write_text(
        """let kept;
        export function onHandshake(request) { kept = request; }
        export function onMessage(session, name) {
          try { kept.setUser(name); } catch (error) { session.send(`${error.name}: ${error.message} ${session.user}`); }
        }"""
    )
    with play(script) as chat:
        ann = chat.connect()
        ann.send("eve")
        assert ann.take() == ["Error: request.setUser() must be called before onHandshake has returned null"]


# Messages of a client that was kicked


def test_what_a_kicked_client_has_sent_before_is_not_handled(serve: Callable[..., Any], tmp_path: Path) -> None:
    script = tmp_path / "script.js"
    script.write_text(
        """import { sessions } from "wsthreads";
        const handled = [];
        let goOn;
        export function onHandshake(request) { request.setUser(request.getParameter("user")); }
        export function onMessage(session, message) {
          handled.push(message);
          if (message === "go on") goOn();
          if (message !== "first") return;
          session.send("began");
          return new Promise((done) => { goOn = done; });
        }
        export function onClose() { for (const other of sessions()) other.send(handled.join()); }
        """
    )
    app = WebSocketApp()
    app.add_script("/ws/k", script)
    endpoint = app.endpoint("/ws/k")
    url = serve(app).ws_url + "/ws/k"
    with connect(f"{url}?user=ann") as ann, connect(f"{url}?user=bob") as bob:
        ann.send("first")
        assert receive(ann) == "began"
        for _ in range(5):
            ann.send("more")
        wait_until(lambda: endpoint.totals().messages_in >= 6)
        endpoint.user("ann").close(4003)
        bob.send("go on")
        assert receive(bob) == "first,go on"


# Over Redis


def test_over_redis_a_script_reaches_users_of_its_own_process(
    serve: Callable[..., Any], redis_server: Any, tmp_path: Path
) -> None:
    script = tmp_path / "script.js"
    script.write_text(SOURCE)
    app = WebSocketApp(broker=RedisBroker(redis_server.url, prefix=f"users-{random.randrange(2**32)}"))
    app.add_script("/ws/u", script)
    url = serve(app).ws_url + "/ws/u"
    with connect(f"{url}?user=ann") as ann, connect(f"{url}?user=bob") as bob:
        for message in (["user", "bob", "send", "hi"], ["user", "bob", "sessions"]):
            ann.send(json.dumps(message))
            answer = json.loads(receive(ann))
        assert receive(bob) == "hi"
        assert len(answer["result"]) == 1
        ann.send(json.dumps(["user", "bob", "close", 4003, "kicked", {"banS": 60}]))
        with pytest.raises(ConnectionClosed):
            receive(bob)
        assert bob.close_code == 4003
        with pytest.raises(InvalidStatus, match="403"), connect(f"{url}?user=bob"):
            pass
