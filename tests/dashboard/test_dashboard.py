"""The page over HTTP, and who may see what it shows. What it shows is in tests/dashboard/test_live.py."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
import websockets

import wsthreads.dashboard
from tests.dashboard_viewer import Viewer, subprotocols_with
from tests.programs import Browser, connect, receive, run_server
from tests.test_gunicorn import OURS, Gunicorn
from wsthreads import Config, ConfigError, WebSocketApp
from wsthreads.client import CLIENT_FILE
from wsthreads.dashboard import Dashboard
from wsthreads.servers.serving import is_loopback

PAGE = Path(wsthreads.dashboard.__file__).parent / "page"
TOKEN = "a-token-of-24-characters"
WRONG = "a-token-of-24-characterz"


class Greeter:
    def on_message(self, session, message): ...

    def on_open(self, session):
        session.send("hi")


def greeter(**options):
    app = WebSocketApp(**options)
    app.add_handler("/ws/greeter", Greeter)
    return app


@pytest.fixture
def app():
    dashboard = Dashboard()
    app = greeter(wsgi_app=dashboard.lead_here, dashboard=dashboard)
    yield app
    app.shutdown(0)


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


@pytest.mark.parametrize("path", ["/", "/_wsthreads"])
def test_the_redirect_knows_where_the_app_is_mounted(client, path):
    answer = client.get(path, environ_overrides={"SCRIPT_NAME": "/below"})
    assert answer.headers["Location"] == "/below/_wsthreads/"


def test_everything_that_the_page_names_is_there(client):
    for name in re.findall(r'(?:href|src)="([^"]+)"', (PAGE / "index.html").read_text()):
        assert "//" not in name
        assert client.get("/_wsthreads/" + name).status_code == 200


def test_the_browser_s_client_is_beside_the_page(client):
    answer = client.get("/_wsthreads/wsthreads.js")
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert answer.data == CLIENT_FILE.read_bytes()


@pytest.mark.parametrize("path", ["/_wsthreads/", "/_wsthreads/wsthreads.js", "/_wsthreads/status.json"])
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


def test_other_methods_are_none_of_the_page_s(client):
    assert client.post("/_wsthreads/").status_code == 404
    assert client.post("/").status_code == 404


def test_its_paths_are_its_own(app):
    for path in ("/_wsthreads", "/_wsthreads/", "/_wsthreads/live"):
        with pytest.raises(ConfigError, match="belongs to the dashboard"):
            app.add_handler(path, Greeter)


# Who may


def test_without_being_asked_for_there_is_no_page(serve):
    app = greeter()
    assert Browser(app).get("/_wsthreads/").status_code == 404
    with pytest.raises(websockets.InvalidStatus, match="404"):
        connect(serve(app).ws_url + "/_wsthreads/live")


def test_with_a_token_in_the_settings_there_is_one(serve):
    server = serve(greeter(dashboard_token=TOKEN))
    with Viewer(server.ws_url, token=TOKEN) as viewer:
        assert viewer.socket.subprotocol == "wsthreads.live"
        assert [endpoint["path"] for endpoint in viewer.hello["endpoints"]] == ["/ws/greeter"]


def test_with_a_token_in_the_environment_there_is_one(serve, monkeypatch):
    monkeypatch.setenv("WSTHREADS_DASHBOARD_TOKEN", TOKEN)
    server = serve(greeter())
    with Viewer(server.ws_url, token=TOKEN):
        pass


@pytest.mark.parametrize(
    "subprotocols",
    [None, ["wsthreads.live"], subprotocols_with(WRONG), ["wsthreads.live", "token.%%"], ["wsthreads.live", "token.a"]],
)
def test_the_socket_wants_the_token(serve, subprotocols):
    server = serve(greeter(dashboard_token=TOKEN))
    with pytest.raises(websockets.InvalidStatus, match="403"):
        connect(server.ws_url + "/_wsthreads/live", subprotocols=subprotocols)


def test_the_page_learns_whether_a_token_is_needed_and_right():
    def status(app, **headers):
        answer = Browser(app).get("/_wsthreads/status.json", headers=headers)
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status_code, json.loads(answer.text)["token"], json.loads(answer.text).get("error")

    app = greeter(dashboard_token=TOKEN)
    assert status(app, Authorization=f"Bearer {TOKEN}") == (200, True, None)
    assert status(app, Authorization=f"bearer  {TOKEN}") == (200, True, None)
    assert status(app) == (403, True, "the dashboard's token is missing")
    for wrong in (f"Bearer {WRONG}", "Bearer é", f"Bearer {TOKEN}x"):
        assert status(app, Authorization=wrong) == (403, True, "the dashboard's token is wrong")
    assert status(app, Authorization=f"Basic {TOKEN}") == (403, True, "the dashboard's token is missing")
    app.shutdown(0)
    app = greeter(dashboard=Dashboard())
    assert status(app) == (200, False, None)
    assert status(app, **{"X-Forwarded-For": "192.0.2.1"})[:2] == (403, False)
    app.shutdown(0)


def connect_by_name(server, Host="", *, origin, **headers):
    """Connect to the page's socket by a name, which is in the header Host, of the machine."""
    address = socket.create_connection(("127.0.0.1", server.port))
    url = f"ws://{Host or f'127.0.0.1:{server.port}'}/_wsthreads/live"
    return connect(url, sock=address, origin=origin, additional_headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "192.0.2.1"},
        {"X-Forwarded-Proto": "https"},  # all that some proxies are made to set
        {"Via": "1.1 proxy"},
        {"Host": "chat.example"},
        {"Host": "192.0.2.1"},
        {"Host": "localhost.example:5000"},
        {"Host": "127.0.0.1.example"},
    ],
    ids=str,
)
def test_what_comes_through_a_proxy_needs_a_token(serve, headers):
    app = greeter(dashboard=Dashboard())
    assert Browser(app).get("/_wsthreads/status.json", headers=headers).status_code == 403
    server = serve(app)
    for origin in (None, f"http://{headers.get('Host', f'127.0.0.1:{server.port}')}"):  # of no browser, and of one
        with pytest.raises(websockets.InvalidStatus, match="403"):
            connect_by_name(server, **headers, origin=origin)


HOSTS = ["localhost", "LOCALHOST:1", "chat.localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]"]


@pytest.mark.parametrize("host", HOSTS)
def test_whoever_uses_the_machine_needs_none(serve, host):
    with connect_by_name(serve(greeter(dashboard=Dashboard())), host, origin=f"http://{host}") as viewer:
        assert json.loads(receive(viewer))["type"] == "hello"


@pytest.mark.parametrize("allowed", [(), ("*",), ("https://example.org",)])
def test_other_origins_are_refused_even_where_the_app_lets_them_in(serve, allowed):
    server = serve(greeter(dashboard=Dashboard(), allowed_origins=allowed))
    with pytest.raises(websockets.InvalidStatus, match="403"):
        connect(server.ws_url + "/_wsthreads/live", origin="https://example.org")
    with Viewer(server.ws_url, origin=server.url):
        pass


def test_a_page_that_was_made_to_lead_to_this_machine_is_refused(serve):
    server = serve(greeter(dashboard=Dashboard()))
    host = f"evil.example:{server.port}"
    with pytest.raises(websockets.InvalidStatus, match="403"):
        connect_by_name(server, host, origin=f"http://{host}")


def test_origins_that_the_app_lets_in_may_with_the_token(serve):
    server = serve(greeter(dashboard_token=TOKEN, allowed_origins=("https://example.org",)))
    with Viewer(server.ws_url, token=TOKEN, origin="https://example.org"):
        pass
    with pytest.raises(websockets.InvalidStatus, match="403"):
        connect(server.ws_url + "/_wsthreads/live", origin="https://example.org")
    with pytest.raises(websockets.InvalidStatus, match="403"):
        Viewer(server.ws_url, token=TOKEN, origin="https://example.com")


def test_a_token_is_held_to_a_length_and_never_shown():
    for bad, complaint in {
        "x" * 15: "dashboard_token must have at least 16 characters, this one has 15",
        "sixteen letters and spaces": "dashboard_token must be ASCII text without spaces",
        "sixteen-letters-é": "dashboard_token must be ASCII text without spaces",
    }.items():
        with pytest.raises(ConfigError) as caught:
            Config(dashboard_token=bad)
        assert str(caught.value) == complaint
    with pytest.raises(ConfigError, match="must be ASCII text"):
        Config(dashboard_token=12345678901234567890)
    assert TOKEN not in repr(Config(dashboard_token=TOKEN))


def test_a_token_in_the_environment_is_held_to_it_too(monkeypatch):
    monkeypatch.setenv("WSTHREADS_DASHBOARD_TOKEN", "short")
    with pytest.raises(ConfigError, match="at least 16 characters, this one has 5"):
        greeter()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "", "192.0.2.1", "chat.example", "localhost.example")],
)
def test_only_loopback_is_known_to_be_this_machine_s_own(host, expected):
    assert is_loopback(host) is expected


# wsthreads run


@pytest.fixture
def script(tmp_path):
    (tmp_path / "echo.js").write_text("export function onMessage(session, message) { session.send(message); }")
    return tmp_path / "echo.js"


def test_run_shows_the_page_without_a_token_where_only_this_machine_reaches_it(script):
    with run_server(script) as server, Viewer(server.ws_url) as viewer:
        assert viewer.hello["process"] == "development"
        assert viewer.hello["pid"] == server.process.pid
        assert viewer.hello["reload"] is False
        assert viewer.hello["endpoints"] == [
            {"path": "/ws/echo", "handler": "echo.js", "functions": ["onMessage"], "language": "javascript"}
        ]
        assert "token" not in server.log


def test_run_makes_a_token_where_others_could_reach_it_and_says_so_once(script):
    with run_server(script, "--trusted-proxies", "1", "--log-level", "debug") as server:
        said = r"^The page needs a token, because other machines can reach it: http\S+/_wsthreads/#token=(\S+)$"
        token = server.wait_for(said)[1]
        with pytest.raises(websockets.InvalidStatus, match="403"):
            Viewer(server.ws_url)
        with Viewer(server.ws_url, token=token):
            assert server.log.count(token) == 1
        server.end()
        assert server.log.count(token) == 1


def test_run_takes_a_token_and_never_shows_it(script):
    with run_server(script, "--log-level", "debug", env={"WSTHREADS_DASHBOARD_TOKEN": TOKEN}) as server:
        with Viewer(server.ws_url, token=TOKEN):
            pass
        with pytest.raises(websockets.InvalidStatus, match="403"):
            Viewer(server.ws_url)
        server.end()
        assert TOKEN not in server.log


def test_after_a_restart_with_new_code_the_token_is_the_same_and_the_page_is_told(tmp_path):
    handler = tmp_path / "echo.py"
    handler.write_text("def on_open(session): session.send('old')\n")
    with run_server(handler, "--reload", "--trusted-proxies", "1") as server:
        token = server.wait_for(r"#token=(\S+)$")[1]
        with Viewer(server.ws_url, token=token) as viewer:
            assert viewer.hello["reload"] is True
            handler.write_text("def on_open(session)\n    session.send('new')\n")
            event = viewer.event(lambda event: event["kind"] == "reload")
            assert event["level"] == "error"
            assert (event["endpoint"], event["file"], event["line"]) == ("/ws/echo", str(handler), 1)
            assert "not restarted, the old code goes on" in event["text"]
            with connect(server.ws_url + "/ws/echo") as client:
                assert receive(client) == "old"
            handler.write_text("def on_open(session):\n    session.send('newer')\n")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                viewer.next("never")
            assert closed.value.rcvd.code == 1012
        server.wait_for(r"^Listening on", times=2)
        with Viewer(server.ws_url, token=token) as viewer:
            event = viewer.event(lambda event: event["kind"] == "reload")
            assert (event["level"], event["text"]) == ("info", "the server has restarted with new code")


# gunicorn


@pytest.mark.parametrize("worker", ["gthread", OURS])
@pytest.mark.parametrize("preload", [False, True])
def test_under_gunicorn_it_shows_the_process_that_answers(tmp_path, monkeypatch, worker, preload):
    monkeypatch.setenv("WSTHREADS_DASHBOARD_TOKEN", TOKEN)
    with Gunicorn(worker, tmp_path, *["--preload"] * preload) as server:
        url = f"ws://127.0.0.1:{server.port}"
        with Viewer(url, token=TOKEN) as viewer, connect(server.url) as client:
            assert receive(client) == f"process {viewer.hello['pid']}"
            assert viewer.hello["pid"] == server.worker_pid()
            assert viewer.hello["process"] == f"gunicorn worker {viewer.hello['pid']}"
            assert viewer.watch("sessions")["total"] == 1
            viewer.next("sample", lambda sample: sample["endpoints"]["/ws/chat"]["sessions"] == 1)
            client.send("exit")
            assert viewer.event(lambda event: event["kind"] == "error")["endpoint"] == "/ws/chat"
            server.wait_for("^  SystemExit: 3")  # gunicorn's error log has it all the same
        assert server.end() == 0
        assert TOKEN not in server.log


@pytest.mark.parametrize(
    ("threads", "viewers", "sessions", "beyond"),
    [
        (100, 8, 90, 1), (34, 8, 24, 1), (30, 7, 21, 1), (8, 1, 5, 1), (4, 1, 1, 1), (3, 1, 1, 0), (2, 0, 1, 0),
        (1, 0, 0, 0),
    ],
)  # fmt: skip
def test_under_gunicorn_threads_are_set_aside_for_pages(threads, viewers, sessions, beyond):
    app = greeter(dashboard_token=TOKEN)
    app.fit_to_threads(threads)  # two are for HTTP; who comes back to a session may have one of them, not the last
    assert (app._dashboard.admission.places, app._admission.places) == (viewers, sessions)
    assert (app._dashboard.admission.beyond, app._admission.beyond) == (0, beyond)
    app.shutdown(0)
