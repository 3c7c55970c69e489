"""Each example is run as its first lines say, and does what it says."""

from __future__ import annotations

import json
import signal
import socket
import sys
import urllib.parse
import urllib.request
from contextlib import ExitStack
from urllib.error import HTTPError

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.ports import free_port
from tests.programs import DEADLINE_S, EXAMPLES, PROGRAM_S, Program, connect, receive, run_server, wait_until

CHAT = """export function onOpen(session) {
  const username = session.getParameter("user") || "anonymous";
  session.setAttribute("username", username);
  session.room("chat").join();
  session.send(JSON.stringify({ type: "welcome", id: session.id }));
  session.room("chat").broadcastExcept(JSON.stringify({
    type: "join",
    user: username
  }));
}
export function onMessage(session, message) {
  const username = session.getAttribute("username");
  session.room("chat").broadcastExcept(JSON.stringify({
    type: "message",
    from: username,
    text: message,
    timestamp: Date.now()
  }));
}
export function onClose(session) {
  const username = session.getAttribute("username");
  session.room("chat").broadcastExcept(JSON.stringify({
    type: "leave",
    user: username
  }));
  // room.leave() is called automatically after onClose returns
}
"""


def heard(client):
    return json.loads(receive(client))


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE_S).close()
    except ConnectionRefusedError:
        return False
    return True


def fetch(url, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data, timeout=PROGRAM_S) as answer:
        return answer.read().decode()


def chat(url):
    """Alice and Bob, as every server of the chat example lets them talk."""
    with connect(f"{url}?user=alice") as alice:
        assert heard(alice).keys() >= {"type", "id"}
        with connect(f"{url}?user=bob") as bob:
            assert heard(bob)["type"] == "welcome"
            assert heard(alice) == {"type": "join", "user": "bob"}
            bob.send("héllo 🎉")
            message = heard(alice)
            assert isinstance(message.pop("timestamp"), int)
            assert message == {"type": "message", "from": "bob", "text": "héllo 🎉"}
        assert heard(alice) == {"type": "leave", "user": "bob"}


def test_chat_js_is_the_specification_s_example_unchanged():
    assert (EXAMPLES / "chat.js").read_text() == CHAT


@pytest.mark.parametrize("name", ["chat.js", "chat.py"])
def test_the_chat_rooms_in_both_languages(name):
    with run_server(EXAMPLES / name) as server:
        chat(server.ws_url + "/ws/chat")
        assert "Traceback" not in server.log


def test_rooms_js_has_rooms_by_name_and_says_who_is_there():
    with run_server(EXAMPLES / "rooms.js", "--history-messages", "1000") as server, ExitStack() as stack:

        def enter(user, room):
            return stack.enter_context(connect(f"{server.ws_url}/ws/rooms?user={user}&room={room}"))

        def names(people):
            return [person["user"] for person in people]

        def heard_of_presence(client, kind, name):
            while (message := heard(client))["type"] != "presence" or name not in names(message[kind]):
                pass

        ann = enter("ann", "garden")
        welcome = heard(ann)
        assert welcome.pop("id")
        assert welcome.pop("position")
        assert names(welcome.pop("people")) == ["ann"]
        assert welcome == {"type": "welcome", "room": "garden", "complete": True}
        bob, eve = enter("bob", "garden"), enter("eve", "cellar")
        assert names(heard(bob)["people"]) == ["ann", "bob"]
        assert names(heard(eve)["people"]) == ["eve"]
        heard_of_presence(ann, "joined", "bob")
        eve.send(json.dumps({"type": "message", "text": "nobody hears this"}))
        bob.send(json.dumps({"type": "message", "text": "hello"}))
        assert heard(ann)["text"] == "hello"
        eve.send(json.dumps({"type": "private", "to": "ann", "text": "psst"}))
        message = heard(ann)
        assert (message["type"], message["from"], message["text"]) == ("private", "eve", "psst")
        bob.close()
        heard_of_presence(ann, "left", "bob")
        long = enter("x" * 400, "y" * 400)
        assert len(heard(long)["room"]) == 40


def flask_under(server_command, port):
    pytest.importorskip("flask")
    with Program([sys.executable, "-m", *server_command], cwd=EXAMPLES) as server, ExitStack() as stack:
        wait_until(lambda: answers(port) or server.process.poll() is not None, deadline_s=PROGRAM_S)
        listeners = [stack.enter_context(connect(f"ws://127.0.0.1:{port}/ws/news")) for _ in range(3)]

        def announce(text):
            return json.loads(fetch(f"http://127.0.0.1:{port}/announce", text=text))["listeners"]

        wait_until(lambda: announce("Anybody there?") == 3)  # they join right after the handshake
        announce("Lunch is ready")
        for listener in listeners:
            while (news := heard(listener))["text"] == "Anybody there?":
                pass
            assert news == {"type": "announcement", "text": "Lunch is ready"}
        listeners[0].send("thanks")
        assert heard(listeners[1]) == {"type": "message", "text": "thanks"}
        assert "<h1>News</h1>" in fetch(f"http://127.0.0.1:{port}/")
        yield server, listeners
    assert "Traceback" not in server.log


def test_flask_views_broadcast_under_its_own_server():
    port = free_port()
    for _ in flask_under(["flask", "--app", "flask_app", "run", "--with-threads", "--port", str(port)], port):
        pass


def test_flask_views_broadcast_under_gunicorn():
    pytest.importorskip("gunicorn")
    port = free_port()
    command = ["gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "20", "-b", f"127.0.0.1:{port}"]
    for server, listeners in flask_under([*command, "flask_app:app"], port):
        assert server.end(signal.SIGTERM) == 0
        for listener in listeners:
            with pytest.raises(ConnectionClosed) as caught:
                for _ in range(10):
                    receive(listener)
            assert caught.value.rcvd.code == 1001


def test_signed_tokens_open_both_endpoints_and_nothing_else_does():
    pytest.importorskip("flask")
    itsdangerous = pytest.importorskip("itsdangerous")
    port, secret = free_port(), "a secret of this test"
    command = ["gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "20", "-b", f"127.0.0.1:{port}"]
    environment = {"TOKEN_SECRET": secret}
    with Program([sys.executable, "-m", *command, "signed_tokens:app"], cwd=EXAMPLES, env=environment) as server:
        wait_until(lambda: answers(port) or server.process.poll() is not None, deadline_s=PROGRAM_S)
        token = json.loads(fetch(f"http://127.0.0.1:{port}/token", user="ann"))["token"]
        with pytest.raises(HTTPError, match="400"):
            fetch(f"http://127.0.0.1:{port}/token", user=" ")

        class Late(itsdangerous.TimestampSigner):
            def get_timestamp(self):
                return super().get_timestamp() - 61

        def sign(key=secret, salt="websocket", signer=None):
            return itsdangerous.URLSafeTimedSerializer(key, salt=salt, signer=signer).dumps("ann")

        bad = ["", "ann", token[:-1], token + "x", token.upper(), "." + token, sign(key="another"), sign(salt="cookie"),
               sign(signer=Late), itsdangerous.URLSafeSerializer(secret, salt="websocket").dumps("ann")]  # fmt: skip
        for path in ("/ws/python", "/ws/script"):
            url = f"ws://127.0.0.1:{port}{path}"
            for where, options in (
                (f"{url}?token={token}", {}),
                (f"{url}?token={sign()}", {}),
                (url, {"additional_headers": {"Authorization": f"Bearer {token}"}}),
                (url, {"subprotocols": ["chat", f"token.{token}"]}),
                (f"{url}?token={token}", {"additional_headers": {"X-User": "root"}}),
            ):
                with connect(where, **options) as client:
                    assert receive(client) == "welcome, ann"
                    assert client.subprotocol == ("chat" if "subprotocols" in options else None)
                    client.send("hello")
                    assert receive(client) == "ann: hello"
            for wrong in bad:
                for where, options in (
                    (f"{url}?token={wrong}", {}),
                    (f"{url}?token={wrong}", {"additional_headers": {"X-User": "ann"}}),
                    (url, {"additional_headers": {"Authorization": f"Bearer {wrong}"}}),
                    (url, {"subprotocols": ["chat", f"token.{wrong}"]}),
                ):
                    with pytest.raises(InvalidStatus, match="401"), connect(where, **options):
                        pass
        assert server.end() == 0
        assert "Traceback" not in server.log
