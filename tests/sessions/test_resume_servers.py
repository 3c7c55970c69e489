"""The same story of a session that loses its connection, under each server."""

import json
import sys
from contextlib import contextmanager

import pytest

from tests.programs import Program, run_server
from tests.speakers import Speaker
from tests.wire import CLOSE, close_payload, endpoint, self_signed
from wsthreads.protocol import envelope

HANDLER = """
class Chat:
    def __init__(self):
        self.calls = []
        self.session = None

    def on_open(self, session):
        self.session = session
        self.calls.append("open")

    def on_message(self, session, message):
        if message == "calls":
            session.send(json.dumps(self.calls))
        elif message == "ask":
            session.send(f"it said {session.request('what?')}")
        elif message.startswith("many "):
            for number in range(int(message[5:])):
                session.send(f"{number} " + "x" * 1000)
        else:
            self.calls.append(message)
            session.send(f"echo {message}")

    def on_request(self, session, message):
        return f"answer to {message}"

    def on_suspend(self, session):
        self.calls.append("suspend")
        session.send("while away")

    def on_resume(self, session):
        self.calls.append("resume")

    def on_close(self, session, code):
        self.calls.append(f"close {code}")
"""
PROGRAM = f"""
import json
from wsthreads import WebSocketApp
{HANDLER}
app = WebSocketApp(resume_s=60)
app.add_handler("/ws/test", Chat())
"""


@contextmanager
def by_werkzeug(tmp_path, tls=None):
    scope = {"json": json}
    exec(HANDLER, scope)
    with endpoint(scope["Chat"](), ssl_context=tls, resume_s=60) as (_, port):
        yield port, {}


@contextmanager
def by_tls(tmp_path):
    server, client = self_signed(tmp_path)
    with by_werkzeug(tmp_path, tls=server) as (port, _):
        yield port, {"tls": client}


@contextmanager
def by_run(tmp_path):
    hooks = ("on_open", "on_message", "on_request", "on_suspend", "on_resume", "on_close")
    functions = "\n".join(f"{hook} = chat.{hook}" for hook in hooks)
    (tmp_path / "chat.py").write_text(f"import json\n{HANDLER}\nchat = Chat()\n{functions}\n")
    with run_server("chat.py", "--path", "/ws/test", "--resume-s", "60", cwd=tmp_path) as server:
        yield server.port, {}


def by_gunicorn(worker):
    @contextmanager
    def serve(tmp_path):
        (tmp_path / "chatapp.py").write_text(PROGRAM)
        command = [sys.executable, "-m", "gunicorn", "-k", worker, "--threads", "20", "-w", "1"]
        command += ["--bind", "127.0.0.1:0", "--pythonpath", str(tmp_path), "chatapp:app"]
        with Program(command) as server:
            yield int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1]), {}

    return serve


SERVERS = {
    "Werkzeug": by_werkzeug,
    "Werkzeug with TLS": by_tls,
    "wsthreads run": by_run,
    "gunicorn gthread": by_gunicorn("gthread"),
    "gunicorn with our worker": by_gunicorn("wsthreads.gunicorn.ThreadWorker"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_a_session_goes_on_over_three_connections(tmp_path, server):
    with SERVERS[server](tmp_path) as (port, options), Speaker(port, **options).begin() as client:
        client.send("one")
        assert client.next() == "echo one"
        client.send("many 300")
        assert client.all(100) == [f"{number} " + "x" * 1000 for number in range(100)]
        client.lose()
        welcome = client.come_back()
        assert welcome.resumed
        if welcome.received < client.sent:
            client.put("many 300")
        assert client.all(201) == [*(f"{number} " + "x" * 1000 for number in range(100, 300)), "while away"]
        client.send("ask")
        assert client.next() == envelope.Request(1, "what?")
        client.wire.send(CLOSE, close_payload(4901))
        assert client.receive_close()[0] == 4901
        client.come_back()
        client.put(envelope.reply(1, "this"))
        client.sent += 1
        assert client.all(2) == ["it said this", "while away"]
        client.ask(1, "x" * 100_000)
        assert client.next() == envelope.Reply(1, "answer to " + "x" * 100_000)
        client.send("calls")
        assert json.loads(client.next()) == ["open", "one", "suspend", "resume", "suspend", "resume"]
        assert client.heartbeat() == 6
        client.leave()
