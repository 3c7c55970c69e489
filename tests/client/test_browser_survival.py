"""Pages whose connection is lost go on with their session: Chromium and a real server.

The page sends c1, c2 …, the server s1, s2 …, before, during and after each loss.
"""

from __future__ import annotations

import json

import pytest
from websockets.sync.client import connect

from tests.browsing import needed_chromium
from tests.programs import DEADLINE_S, Program, run_server, wait_until
from tests.wire import serving, vanish
from wsthreads import WebSocketApp
from wsthreads.servers.static import StaticFiles

PAGE = """<!doctype html><link rel="icon" href="data:,"><script type="module">
import { ReconnectingWebSocket } from "/wsthreads.js";
const socket = globalThis.socket = new ReconnectingWebSocket("/ws/test", [], { minDelay: 50, maxDelay: 100 });
globalThis.got = [];
globalThis.told = [];
socket.onmessage = ({ data }) => got.push(data);
socket.onrequest = ({ data }) => `answer to ${data}`;
socket.onopen = ({ lost }) => told.push(`open ${lost}`);
socket.onresumed = () => told.push("resumed");
addEventListener("pageshow", ({ persisted }) => { if (persisted) told.push("from the cache"); });
document.addEventListener("resume", () => told.push("thawed"));
</script>"""


class Handler:
    """Keeps what happens, in order."""

    def __init__(self):
        self.sessions, self.got, self.calls = [], [], []

    def on_open(self, session):
        self.sessions.append(session)

    def on_message(self, session, message):
        self.got.append(message)

    def on_request(self, session, message):
        return f"answer to {message}"

    def on_suspend(self, session):
        self.calls.append("suspend")

    def on_resume(self, session):
        self.calls.append("resume")

    def on_close(self, session, code, reason):
        self.calls.append(f"close {code}")


class World:
    """A page, its session, and what both have sent."""

    def __init__(self, handler, page):
        self.handler, self.page, self.sent = handler, page, 0
        page.wait_for_function("globalThis.told?.length === 1")
        wait_until(lambda: handler.sessions, "on_open, before which the page has its welcome")

    @property
    def session(self):
        return self.handler.sessions[0]

    def send(self, count=3):
        """Both sides send, also if there is no connection."""
        for number in range(self.sent + 1, self.sent + count + 1):
            assert self.session.send(f"s{number}")
            assert self.page.evaluate("(number) => socket.send(`c${number}`)", number)
        self.sent += count

    def check(self, *told):
        """All has arrived once, in order, in one session. The page was told this, or was more impatient than that."""
        numbers = range(1, self.sent + 1)
        self.page.wait_for_function("(count) => got.length >= count", arg=self.sent)
        assert self.page.evaluate("got") == [f"s{number}" for number in numbers]
        wait_until(lambda: len(self.handler.got) >= self.sent, "all messages of the page")
        assert self.handler.got == [f"c{number}" for number in numbers]
        assert self.page.evaluate("told")[: len(told)] == list(told)
        assert len(self.handler.sessions) == 1
        assert self.page.evaluate("socket.request('late')") == "answer to late"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "index.html").write_text(PAGE)
    (folder / "other.html").write_text('<!doctype html><link rel="icon" href="data:,">elsewhere')
    return folder


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
def server(site, handler):
    """(app, url)"""
    app = WebSocketApp(StaticFiles(site), serve_client=True, resume_s=60)
    app.add_handler("/ws/test", handler)
    with serving(app) as port:
        yield app, f"http://127.0.0.1:{port}"


@pytest.fixture
def world(server, handler, window):
    return World(handler, window(server[1]))


def test_a_network_that_was_away_costs_no_message(world):
    world.send()
    world.page.context.set_offline(True)
    world.send()
    world.page.context.set_offline(False)
    world.page.wait_for_function("globalThis.told?.at(-1) === 'resumed'")
    world.send()
    world.check("open 0", "resumed")
    assert world.handler.calls == ["suspend", "resume"]


class Devtools:
    """A Chromium, by its own protocol: the pages of Playwright always count as visible, and those never freeze."""

    def __init__(self, socket):
        self._socket, self._number = socket, 0

    def __call__(self, method, session=None, **parameters):
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(request | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(timeout=DEADLINE_S))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]


class Tab:
    """As far as `World` needs it, a page of Playwright."""

    def __init__(self, devtools, url):
        self.devtools = devtools
        self.id = devtools("Target.createTarget", url=url)["targetId"]
        self.session = devtools("Target.attachToTarget", targetId=self.id, flatten=True)["sessionId"]

    def evaluate(self, text, argument=None):
        text = f"({text})({json.dumps(argument)})" if "=>" in text else text
        answer = self.devtools(
            "Runtime.evaluate", self.session, expression=text, returnByValue=True, awaitPromise=True
        )["result"]  # fmt: skip
        assert answer.get("subtype") != "error", answer
        return answer.get("value")

    def wait_for_function(self, text, arg=None):
        wait_until(lambda: self.evaluate(text, arg), text)


@pytest.fixture
def devtools(browser, tmp_path):
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options = ["--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}"]
    with (
        Program([needed_chromium(with_windows=True), *arguments, *options, "about:blank"]) as program,
        connect(program.wait_for(r"DevTools listening on (ws://\S+)")[1], max_size=None) as socket,
    ):
        yield Devtools(socket)


def test_a_page_that_was_frozen_gets_what_it_missed(server, handler, devtools):
    page = Tab(devtools, server[1])
    world = World(handler, page)
    world.send()
    Tab(devtools, "about:blank")  # in front of it
    page.wait_for_function("document.hidden")
    devtools("Page.setWebLifecycleState", page.session, state="frozen")
    for number in range(4, 14):
        world.session.send(f"s{number}")
    devtools("Page.setWebLifecycleState", page.session, state="active")
    page.wait_for_function("told.includes('thawed')")
    page.evaluate("for (let n = 4; n < 14; n++) socket.send(`c${n}`)")
    world.sent = 13
    devtools("Target.activateTarget", targetId=page.id)
    page.wait_for_function("!document.hidden")
    world.send()
    world.check("open 0", "thawed")


def test_a_connection_that_dies_while_the_page_is_frozen_is_replaced_when_it_is_shown(server, handler, devtools):
    app, url = server
    page = Tab(devtools, url)
    world = World(handler, page)
    world.send()
    world.check("open 0")
    Tab(devtools, "about:blank")
    page.wait_for_function("document.hidden")
    devtools("Page.setWebLifecycleState", page.session, state="frozen")
    (connection,) = app.endpoint("/ws/test").connections()
    vanish(connection.channel.transport._sock)
    for number in range(4, 14):
        world.session.send(f"s{number}")
    devtools("Page.setWebLifecycleState", page.session, state="active")
    page.evaluate("for (let n = 4; n < 14; n++) socket.send(`c${n}`)")
    world.sent = 13
    devtools("Target.activateTarget", targetId=page.id)
    page.wait_for_function("told.at(-1) === 'resumed'")
    world.send()
    world.check("open 0", "thawed", "resumed")


@pytest.fixture
def caching_window(browser):
    """A window of a Chromium that keeps pages for "back". For tests, Playwright forbids it otherwise."""
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    launched = browser.browser_type.launch(
        executable_path=needed_chromium(with_windows=True),
        args=arguments,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    page = launched.new_page()
    page.set_default_timeout(DEADLINE_S * 1000)
    yield page
    launched.close()


def test_a_page_from_the_cache_of_the_browser_goes_on_with_its_session(server, handler, caching_window):
    """Chromium keeps no page that has an open connection."""
    page = caching_window
    page.goto(server[1])
    world = World(handler, page)
    world.send()
    page.goto(f"{server[1]}/other.html")
    wait_until(lambda: handler.calls == ["suspend"], "a suspended session")
    for number in (4, 5):
        world.session.send(f"s{number}")
    page.evaluate("history.back()")
    page.wait_for_function("globalThis.told?.at(-1) === 'resumed'")
    page.evaluate("{ socket.send('c4'); socket.send('c5'); }")
    world.sent += 2
    world.send()
    world.check("open 0", "thawed", "from the cache", "resumed")


def test_an_old_connection_that_seems_alive_is_replaced(world, server):
    """The server hears nothing any more from the page, and does not know it."""
    app, _ = server
    world.send()
    world.check("open 0")
    (connection,) = app.endpoint("/ws/test").connections()
    vanish(connection.channel.transport._sock)
    world.send()
    world.page.evaluate("dispatchEvent(new Event('online'))")
    world.page.wait_for_function("globalThis.told?.at(-1) === 'resumed'")
    world.send()
    world.check("open 0", "resumed")
    assert world.handler.calls == ["suspend", "resume"]


RESTARTED = """
import threading

def on_open(session):
    session.send("new")

def on_message(session, message):
    session.send(f"echo {message}")

def on_request(session, message):
    session.send("asked")
    threading.Event().wait(60)
"""


def test_a_page_whose_server_is_another_one_gets_a_new_session_and_is_told_what_may_be_lost(window, site, tmp_path):
    (tmp_path / "test.py").write_text(RESTARTED)
    options = [tmp_path / "test.py", "--static", site, "--serve-client", "--resume-s", "60"]
    with run_server(*options) as server:
        page = window(server.url)
        page.wait_for_function("globalThis.told?.length === 1")
        page.evaluate("socket.send('one')")
        page.evaluate("() => { globalThis.asked = socket.request('x', { timeoutMs: 1e6 }).catch(({ name }) => name); }")
        page.wait_for_function("got.includes('asked')")
        server.process.kill()
        page.wait_for_function("socket.readyState === 0")
        page.evaluate("socket.send('two')")
    with run_server(*options, port=server.port):
        page.wait_for_function("got.includes('echo two')")
        assert page.evaluate("[told, got]") == [["open 0", "open 1"], ["new", "echo one", "asked", "new", "echo two"]]
        assert page.evaluate("asked") == "SessionClosed"
