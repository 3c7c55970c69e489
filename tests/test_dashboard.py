from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import wsthreads.dashboard
from tests.programs import Browser, connect, receive
from wsthreads import WebSocketApp
from wsthreads.dashboard import Dashboard

PAGE = Path(wsthreads.dashboard.__file__).parent / "page"


class Greeter:
    def on_message(self, session, message): ...

    def on_open(self, session):
        session.send("hi")


@pytest.fixture
def app():
    app = WebSocketApp(Dashboard(lambda: app.endpoints))
    app.add_handler("/ws/greeter", Greeter)
    return app


@pytest.fixture
def client(app):
    return Browser(app)


def test_the_root_leads_to_the_page(client):
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/_wsthreads/")
    assert client.get("/_wsthreads").status_code == 302
    page = client.get("/_wsthreads/")
    assert page.status_code == 200
    assert "Endpoints" in page.text


def test_the_redirect_knows_where_the_app_is_mounted(client):
    answer = client.get("/", environ_overrides={"SCRIPT_NAME": "/below"})
    assert answer.headers["Location"] == "/below/_wsthreads/"


def test_everything_that_the_page_names_is_there(client):
    for name in re.findall(r'(?:href|src)="([^"]+)"', (PAGE / "index.html").read_text()):
        assert "//" not in name
        assert client.get("/_wsthreads/" + name).status_code == 200


def test_endpoints_are_listed_with_their_functions_and_sessions(serve, app):
    server = serve(app)
    client = Browser(app)
    expected = {"path": "/ws/greeter", "handler": "Greeter", "functions": ["on_open", "on_message"], "sessions": 0}
    assert json.loads(client.get("/_wsthreads/status.json").text) == {"endpoints": [expected]}
    with connect(server.ws_url + "/ws/greeter") as session:
        receive(session)
        status = client.get("/_wsthreads/status.json")
        assert json.loads(status.text)["endpoints"][0]["sessions"] == 1
        assert status.headers["Cache-Control"] == "no-store"


def test_functions_of_a_script_are_spelled_as_in_javascript(tmp_path):
    script = tmp_path / "echo.js"
    script.write_text("export function onClose() {}\nexport function onOpen() {}\n")
    app = WebSocketApp()
    app.add_script("/ws/echo", script)
    try:
        [endpoint] = wsthreads.dashboard.status_of(app.endpoints)["endpoints"]
        assert (endpoint["handler"], endpoint["functions"]) == ("echo.js", ["onOpen", "onClose"])
    finally:
        app.shutdown(0)


@pytest.mark.parametrize("path", ["/_wsthreads/", "/_wsthreads/client.js", "/_wsthreads/status.json"])
def test_the_page_may_talk_to_its_own_server_only(client, path):
    policy = client.get(path, headers={"Host": "chat.example:8000"}).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self' ws://chat.example:8000 wss://chat.example:8000;" in policy
    assert "unsafe" not in policy
    assert "*" not in policy


def test_a_host_header_cannot_change_the_policy(client):
    policy = client.get("/_wsthreads/", headers={"Host": "x; script-src *"}).headers["Content-Security-Policy"]
    assert "connect-src 'self';" in policy


@pytest.mark.parametrize("path", ["/_wsthreads/../x", "/_wsthreads/no.js", "/_wsthreads/.hidden", "/other"])
def test_anything_else_is_a_404(client, path):
    assert client.get(path).status_code == 404


def test_other_methods_go_on(client):
    assert client.post("/_wsthreads/").status_code == 404
