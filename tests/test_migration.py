"""The tables of docs/how-to/migrating.rst: what they say of wsthreads is here in code that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pages import tables
from tests.redis_server import RedisServer
from wsthreads import Config, HandshakeRefused
from wsthreads.testing import play

PYTHON = '''
import json
from threading import Thread

from wsthreads import RedisBroker, WebSocketApp

sockets = WebSocketApp(allowed_origins=["https://example.org"], broker=RedisBroker("redis://localhost"))
ended = []

@sockets.route("/ws/chat")
class Chat:
    def on_handshake(self, request):
        if request.get_parameter("user") is None:
            return 401
        request.attributes["name"] = request.get_parameter("user")
        if request.get_parameter("user") == "ann":
            request.user = "ann"

    def on_open(self, session):
        session.room("lobby").join()

    def on_message(self, session, message):
        if json.loads(message)["type"] == "answer":
            data = [session.attributes["name"], session.id]
            session.send(json.dumps(data))
        elif json.loads(message)["type"] == "one":
            text, sid = "for one", json.loads(message)["sid"]
            session.endpoint.user("ann").send(text)
            session.endpoint.session(sid).send(text)
        elif json.loads(message)["type"] == "kick":
            session.endpoint.user("ann").close(4003, "kicked")
        elif json.loads(message)["type"] == "all":
            text = "all"
            session.room("lobby").broadcast(text)
        elif json.loads(message)["type"] == "others":
            text = "others"
            session.room("lobby").broadcast_except(text)
        elif json.loads(message)["type"] == "work":
            def work():
                text = "from a thread"
                sockets.endpoint("/ws/chat").room("lobby").broadcast(text)
            Thread(target=work).start()
        elif json.loads(message)["type"] == "leave":
            session.room("lobby").leave()
            session.close(4000, "bye")

    def on_close(self, session, code, reason):
        ended.append((code, reason))
'''

JAVASCRIPT = """
export function onHandshake(request) {
  const user = request.getParameter("user");
  if (!user) return 401;
  request.setAttribute("user", user);
}

export function onOpen(session) {
  const user = session.getParameter("user");
  session.setAttribute("user", user);
  session.room("all").join();
}

export function onMessage(session, message) {
  if (typeof message !== "string") session.send(String(message instanceof ArrayBuffer));
  if (message === "all") session.room("all").broadcast(message);
  if (message === "answer") session.send(message);
  if (message === "cookie") session.send(session.getHeader("Cookie"));
  if (message === "fail") fail();
  if (message === "bye") {
    session.close(4000, "bye");
    session.room("all").broadcast(String(session.isOpen()));
  }
}

export function onError(session, error) {
  session.send(error.message);
}

export function onClose(session, code, reason) {
  session.room("all").broadcastExcept(`${code} ${reason}`);
}
"""

FROM_ROOMS = """
import { room } from "wsthreads";
import { user as to } from "wsthreads";

export function onHandshake(request) {
  const user = request.getParameter("user");
  if (!user) return 401;
  request.setUser(user);
  request.setAttribute("user", user);
}

export function onOpen(session) {
  session.room("lobby").join();
  if (session.getParameter("room")) session.room(session.getParameter("room")).join();
}

export function onMessage(session, message) {
  const type = JSON.parse(message).type;
  const text = type;
  const { user } = JSON.parse(message);
  if (type === "one") to(user).send(text);
  if (type === "kick") to(user).close(4003, "kicked");
  if (type === "outside") setTimeout(() => room("lobby").broadcast(text), 1);
  if (type === "answer") {
    const data = [session.id, session.getAttribute("user"), session.rooms().sort(), session.room("lobby").members()];
    session.send(JSON.stringify(data));
  }
  if (type === "all") session.room("lobby").broadcast(text);
  if (type === "others") session.room("lobby").broadcastExcept(text);
  if (type === "leave") session.room("lobby").leave();
  if (type === "bye") session.close(4000, "bye");
  if (type === "state") {
    const topic = "tea";
    session.room("lobby").setAttribute("topic", topic);
    session.room("lobby").post(text);
  }
  if (type === "back") {
    session.room("lobby").leave();
    session.room("lobby").join({ history: 50, since: session.getParameter("since") });
    session.send(room("lobby").position());
  }
  if (type === "later") {
    const timer = setInterval(() => { session.send(text); clearInterval(timer); }, 1);
  }
}

export function onPost(room, value, from) {
  room.broadcast(`${value} ${room.getAttribute("topic")} ${from.user}`);
}

export function onClose(session, code, reason) {
  session.room("lobby").broadcastExcept(`${code} ${reason}`);
}
"""

FROM_GAMES = """
export const tickRate = 20;
const games = new Map();

export function onRoomStart(room) {
  games.set(room.getName(), room.getAttribute("game") ?? { at: 0, by: 0 });
}

export function onOpen(session) {
  const room = session.room(session.getParameter("room"));
  const joins = session.getParameter("since")
    ? ((position) => room.join({ since: position }).joined)(session.getParameter("since"))
    : session.getParameter("late") ? room.join({ history: 50 }).joined : room.join({ maxMembers: 4 }).joined;
  if (joins) room.setPresence({});
  session.send(JSON.stringify([joins, room.presence().length, room.position()]));
}

export function onMessage(session, message) {
  const room = session.room(session.getParameter("room"));
  const move = JSON.parse(message);
  room.post(move);
}

export function onPost(room, move, from) {
  games.get(room.getName()).by = move;
  room.broadcast(from.id);
}

export function onTick(room, dt) {
  const game = games.get(room.getName());
  game.at = Math.round(game.at + game.by * dt * 20);
  room.setAttribute("game", game);
  room.broadcast(JSON.stringify(game), { latest: "state", keep: false });
}

export function onRoomEnd(room) {
  games.delete(room.getName());
}
"""

FROM_WEB = """
import { env, room } from "wsthreads";
import { save } from "./store.py";

export function onHandshake(request) {
  const user = request.getParameter("user");
  if (!user || request.getHeader("Cookie") !== "a=b") return 401;
}

export function onOpen(session) {
  const user = session.getParameter("user");
  session.setAttribute("user", user);
  session.room("lobby").join();
}

export async function onMessage(session, message) {
  const text = message instanceof ArrayBuffer ? "binary" : message;
  if (text === "binary") session.send(text);
  if (text === "secret") session.send(env.API_KEY);
  if (text === "all") room("lobby").broadcast(text);
  if (text === "save") session.send(await save(session.getAttribute("user")));
  if (text === "post") session.room("lobby").post(text);
  if (text === "fetch") {
    const url = "http://192.0.2.1/";
    await fetch(url).catch((error) => session.send(error.message));
  }
  if (text === "later") {
    const timer = setInterval(() => { session.send(text); clearInterval(timer); }, 1);
  }
}

export function onPost(room, value, from) {
  room.broadcast(value);
}

export function onClose(session, code, reason) {
  room("lobby").broadcast(`${code} ${reason}`);
}
"""

#: What is no part of those handlers, and where it is shown to be true.
ELSEWHERE = {
    "play(sockets)": "this file",
    "/ws/rooms/<name>": "tests/test_routing.py",
    'session.getPathParameter("name")': "tests/test_routing.py",
    "wsthreads.testing": "this file",
    "new ReconnectingWebSocket(url)": "tests/client/test_browser_client.py",
    "WSTHREADS_REDIS=redis://localhost": "tests/test_tutorial.py",
    "--env-file .env": "tests/javascript/test_env.py",
    'import { nanoid } from "nanoid"': "tests/javascript/test_npm.py",
    "npm install nanoid": "tests/npm.py",
    "session": "this file",
    "chat.ts": "tests/javascript/test_typescript.py",
    'await socket.request("time?")': "tests/client/test_browser_survival.py",
    "socket.onrequest": "tests/client/test_browser_sessions.py",
    "export function onRequest(session, message)": "tests/javascript/test_requests.py",
    'await session.request("name?")': "tests/javascript/test_requests.py",
    "--resume-s 60": "tests/cli/test_cli.py",
    "wsthreads.js": "tests/client/test_browser_survival.py",
}


def test_whatever_it_says_of_wsthreads_is_in_code_that_runs() -> None:
    *froms, without = tables("docs/how-to/migrating")
    assert len(froms) == 5
    assert min(map(len, (*froms, without))) > 8
    for literal in (literal for rows in froms for row in rows for literal in row[-1]):
        assert (
            literal in PYTHON + JAVASCRIPT + FROM_ROOMS + FROM_GAMES + FROM_WEB
            or literal in ELSEWHERE
            or literal in Config.__dataclass_fields__
        ), literal


def test_handlers_in_python(redis_server: RedisServer) -> None:
    names: dict[str, Any] = {"__name__": "chat"}
    exec(PYTHON.replace("redis://localhost", redis_server.url), names)
    sockets, ended = names["sockets"], names["ended"]
    with play(sockets) as chat:
        with pytest.raises(HandshakeRefused, match="401"):
            chat.connect()
        ann, bob = chat.connect(user="ann"), chat.connect(user="bob", headers={"Origin": "https://example.org"})
        ann.send(json.dumps({"type": "answer"}))
        assert json.loads(ann.receive()) == ["ann", ann.session.id]
        ann.send(json.dumps({"type": "others"}))
        assert bob.receive() == "others"
        for kind, text in ("all", "all"), ("work", "from a thread"):
            ann.send(json.dumps({"type": kind}))
            assert (ann.receive(), bob.receive()) == (text, text)
        bob.send(json.dumps({"type": "one", "sid": bob.session.id}))
        assert (ann.receive(), bob.receive()) == ("for one", "for one")
        ann.send(json.dumps({"type": "leave"}))
        assert (ann.closed, ended) == ((4000, "bye"), [(4000, "bye")])
        ann = chat.connect(user="ann")
        bob.send(json.dumps({"type": "kick"}))
        assert ann.wait_closed() == (4003, "kicked")
    sockets.shutdown()


def test_scripts(tmp_path: Path) -> None:
    (tmp_path / "chat.js").write_text(JAVASCRIPT)
    with play(tmp_path / "chat.js", raise_errors=False) as chat:
        with pytest.raises(HandshakeRefused, match="401"):
            chat.connect()
        ann, bob = chat.connect(user="ann", headers={"Cookie": "a=b"}), chat.connect(user="bob")
        for message, answer in ("answer", "answer"), ("cookie", "a=b"), (b"binary", "true"), ("all", "all"):
            ann.send(message)
            assert ann.take() == [answer]
        bob.take()
        ann.send("fail")
        assert "fail" in ann.take()[0]
        ann.send("bye")
        assert ann.closed == (4000, "bye")
        assert bob.take() == ["false", "4000 bye"]


def test_scripts_of_those_who_had_rooms(tmp_path: Path) -> None:
    (tmp_path / "chat.js").write_text(FROM_ROOMS)
    with play(tmp_path / "chat.js", history_messages=100) as chat:
        with pytest.raises(HandshakeRefused, match="401"):
            chat.connect()
        ann, bob = chat.connect(user="ann", room="garden"), chat.connect(user="bob")

        def say(kind: str) -> None:
            ann.send(json.dumps({"type": kind}))

        say("answer")
        assert ann.take_json() == [[ann.session.id, "ann", ["garden", "lobby"], 2]]
        say("all")
        assert (ann.take(), bob.take()) == (["all"], ["all"])
        say("others")
        assert (ann.take(), bob.take()) == ([], ["others"])
        say("state")
        assert ann.take() == bob.take() == ["state tea ann"]
        say("back")
        *before, position = ann.take()
        assert (before, bob.take()) == (["all", "state tea ann"], [])
        dan = chat.connect(user="dan", since=position)
        bob.send(json.dumps({"type": "all"}))
        bob.take(), dan.take(), ann.take()
        dan.send(json.dumps({"type": "back"}))
        assert dan.take()[0] == "all"
        dan.close()
        ann.take(), bob.take()
        say("later")
        assert ann.receive() == "later"
        phone = chat.connect(user="ann")
        bob.send(json.dumps({"type": "one", "user": "ann"}))
        assert (ann.take(), phone.take(), bob.take()) == (["one"], ["one"], [])
        say("outside")
        assert (ann.receive(), phone.receive(), bob.receive()) == ("outside",) * 3
        bob.send(json.dumps({"type": "kick", "user": "ann"}))
        assert ann.wait_closed() == phone.wait_closed() == (4003, "kicked")
        ann = chat.connect(user="ann")
        bob.take()
        say("bye")
        assert (ann.closed, bob.take()) == ((4000, "bye"), ["4000 bye"])
        bob.send(json.dumps({"type": "leave"}))
        assert chat.room("lobby").members() == 0


def test_a_script_of_those_who_had_games_and_histories(tmp_path: Path) -> None:
    (tmp_path / "game.js").write_text(FROM_GAMES)
    with play(tmp_path / "game.js", history_messages=100) as game:
        players = [game.connect(room="garden") for _ in range(5)]
        joins = [player.take_json()[0][:2] for player in players]
        assert joins == [[True, 1], [True, 2], [True, 3], [True, 4], [False, 4]]
        ann = players[0]
        (_, _, position) = game.connect(room="garden", late="yes").take_json()[0]
        ann.send("2")
        assert ann.take() == [ann.session.id]
        game.advance(0.5)
        assert ann.take_json()[-1] == {"at": 20, "by": 2}
        assert game.room("garden").get_attribute("game") == {"at": 20, "by": 2}
        *missed, _ = game.connect(room="garden", since=position).take()
        assert missed == [ann.session.id]


def test_a_script_of_those_who_had_deno_or_workers(tmp_path: Path) -> None:
    (tmp_path / "chat.js").write_text(FROM_WEB)
    (tmp_path / "store.py").write_text("def save(user): return f'saved {user}'")
    with play(tmp_path / "chat.js", env={"API_KEY": "abc123"}) as chat:
        with pytest.raises(HandshakeRefused, match="401"):
            chat.connect(user="ann")
        ann, bob = (chat.connect(user=name, headers={"Cookie": "a=b"}) for name in ("ann", "bob"))
        answers = {b"1": "binary", "secret": "abc123", "save": "saved ann"}
        for message, answer in answers.items():
            ann.send(message)
            assert ann.receive() == answer
        for message in "all", "post":
            ann.send(message)
            assert ann.receive() == bob.receive() == message
        ann.send("fetch")
        assert "allow_net" in ann.receive()
        ann.send("later")
        assert ann.receive() == "later"
        bob.close(4000, "bye")
        assert ann.receive() == "4000 bye"
