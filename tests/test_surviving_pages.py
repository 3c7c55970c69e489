"""The examples of docs/how-to/mobile.rst and rolling-restarts.rst run, each as its page has it."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pages import blocks
from tests.programs import DEADLINE_S, PROGRAM_S, Program, wait_until
from tests.redis_server import RedisServer
from tests.speakers import Speaker
from wsthreads import Client, create_app
from wsthreads.protocol.envelope import Request, reply
from wsthreads.testing import live_server, play

MOBILE, ROLLING = "docs/how-to/mobile", "docs/how-to/rolling-restarts"

pytestmark = pytest.mark.usefixtures("apps_end")


# Phones and laptops


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    source = blocks(MOBILE, "javascript")[0]
    file = tmp_path / "chat.js"
    file.write_text(source + "\nexport const onRequest = (session, message) => `${message} is on its way`;\n")
    return file


def test_the_handler_tells_who_is_away_and_who_is_back(handler: Path) -> None:
    with play(handler, resume_s=60) as chat:
        ann, bob = chat.connect(user="ann"), chat.connect(user="bob")
        ann.send("hello")
        assert bob.take() == ["ann: hello"]
        ann.lose()
        assert bob.take() == ["ann is away"]
        bob.send("are you there?")
        ann.send("yes")
        ann.come_back()
        assert ann.take() == ["ann: hello", "bob: are you there?", "ann: yes"]
        assert bob.take() == ["bob: are you there?", "ann is back", "ann: yes"]
        ann.lose()
        chat.advance(60)
        assert bob.take() == ["ann is away", "ann has left"]


def test_the_page_goes_on_after_its_network_was_away(handler: Path, tmp_path: Path, window: Callable[..., Any]) -> None:
    _, page, request = blocks(MOBILE, "javascript")
    site = tmp_path / "site"
    site.mkdir()
    shown = "globalThis.shown = []; globalThis.show = (text) => shown.push(text);"
    more = f"globalThis.socket = socket; globalThis.order = async () => {{ {request} return order; }};"
    script = f'<script>{shown}</script><script type="module">{page}{more}</script>'
    (site / "index.html").write_text(f'<!doctype html><link rel="icon" href="data:,">{script}')
    app = create_app(handler, static=site, serve_client=True, resume_s=60)
    with live_server(app) as server:
        tab = window(server.url)
        tab.wait_for_function("globalThis.shown?.length === 1")
        tab.evaluate("socket.send('one')")
        tab.wait_for_function("shown.length === 2")
        tab.context.set_offline(True)
        tab.evaluate("socket.reconnect()")
        tab.evaluate("socket.send('two')")
        tab.context.set_offline(False)
        tab.wait_for_function("shown.includes('ann: two') && shown.includes('back, nothing was missed')")
        assert tab.evaluate("order()") == "order 7 is on its way"
        first, second, *rest = [text for text in tab.evaluate("shown") if not text.startswith("offline")]
        assert (first, second) == ("a new session: load what you need", "ann: one")
        # The network may be back before the page knows it. Then the connection of before has carried the message.
        assert sorted(rest) == ["ann: two", "back, nothing was missed"]


# Rolling restarts


def test_no_message_is_lost_and_no_session_ends_when_the_workers_restart(tmp_path: Path) -> None:
    (tmp_path / "chat.js").write_text(blocks(ROLLING, "javascript")[0])
    console = blocks(ROLLING, "console")[0]
    (command,) = re.findall(r"^\$ (gunicorn .*)", console.replace("\\\n", " "), re.MULTILINE)
    with RedisServer() as redis:
        assert "-w 4" in command
        assert "redis://localhost" in command
        line = command.replace("redis://localhost", redis.url).replace("-w 4", "-w 2").replace(":8000", ":0")
        with Program([sys.executable, "-m", *shlex.split(line)], cwd=tmp_path) as gunicorn:
            port = int(gunicorn.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
            url = f"ws://127.0.0.1:{port}/ws/chat?user="
            with ExitStack() as clients:
                ann, bob = (clients.enter_context(client_of(f"{url}{name}")) for name in ("ann", "bob"))
                assert ann.receive(timeout=DEADLINE_S) == "bob: here"
                sessions = []
                for restarts in range(2):
                    for number in range(3):
                        ann.send(f"{restarts} {number}")
                        for client in (ann, bob):
                            assert client.receive(timeout=PROGRAM_S) == f"ann: {restarts} {number}"
                    sessions.append((ann.session_id, bob.session_id))
                    gunicorn.process.send_signal(signal.SIGHUP)
                    gunicorn.wait_for("Booting worker with pid", times=2 * restarts + 4)
                ann.send("last")
                assert bob.receive(timeout=PROGRAM_S) == "ann: last"
                assert len(set(sessions)) == 1
                assert ann.lost == bob.lost == 0
                wait_until(lambda: ann.resumed and bob.resumed, "both to be back", PROGRAM_S)


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_question_is_asked_again_where_the_session_goes_on(language: str, tmp_path: Path) -> None:
    file = tmp_path / f"kitchen.{'js' if language == 'javascript' else 'py'}"
    file.write_text(blocks(ROLLING, language)[-1])
    with RedisServer() as redis, ExitStack() as stack:
        apps = [create_app(file, redis=redis.url, resume_s=60, serve_client=False) for _ in range(3)]
        ports = [int(stack.enter_context(live_server(app)).url.rpartition(":")[2]) for app in apps]
        with Speaker(ports[0], "/ws/kitchen").begin() as waiter:
            question = "There is no fish. What else?"
            waiter.send("fish")
            assert waiter.next() == Request(1, question)
            waiter.lose()  # it comes back elsewhere
            assert waiter.go_to(ports[1]).greet().resumed
            assert waiter.next() == Request(2, question)
            apps[1].shutdown(DEADLINE_S, 1012, "restart")  # as at HUP
            waiter.lose()
            assert waiter.go_to(ports[2]).greet().resumed
            assert waiter.next() == Request(3, question)
            waiter.put(reply(2, "soup"))  # to what was asked there
            waiter.put(reply(3, "soup"))
            assert waiter.next() == "soup in place of fish"


@contextmanager
def client_of(url: str) -> Iterator[Client]:
    """A client that is in the lobby."""
    with Client(url, min_delay_s=0.05) as client:
        client.send("here")
        assert client.receive(timeout=PROGRAM_S) == f"{url.partition('=')[2]}: here"
        yield client
