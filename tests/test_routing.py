"""Paths with parameters: which endpoint a path leads to, and with which values."""

from __future__ import annotations

import json
import logging
import re
import uuid
from contextlib import contextmanager
from threading import Event
from time import perf_counter
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.pages import blocks
from tests.programs import DEADLINE_S, connect, run_server, wsthreads
from tests.wire import Echo, RawClient, run_all, serving
from wsthreads import ConfigError, HandshakeRefused, RedisBroker, UsageError, WebSocketApp, create_app
from wsthreads.app.routing import Routing
from wsthreads.testing import live_server, play

AN_ID = "0b0a2c5e-7d3f-4c1e-9a51-5f0d5c0b7f11"


class Where:
    """Sends what it has been told of the path, by the request and by the session."""

    def on_handshake(self, request):
        request.attributes["request"] = dict(request.path_parameters)

    def on_open(self, session):
        assert dict(session.path_parameters) == session.attributes["request"]
        session.send(repr(dict(session.path_parameters)))

    def on_message(self, session, message):
        session.room("all").join()
        session.room("all").broadcast(message)


class Named(Where):
    """Says which endpoint it is."""

    def __init__(self, name):
        self.name = name

    def on_open(self, session):
        session.send(f"{self.name} {dict(session.path_parameters)}")


@contextmanager
def served(*paths, inside=None, **settings):
    app = WebSocketApp(inside, **settings)
    for path in paths:
        app.add_handler(path, Named(path))
    with serving(app) as port:
        yield app, port


def asked(port, path):
    """What the endpoint for a path says, or the status and the text of a refusal."""
    with RawClient(port, path) as client:
        if client.status != 101:
            return client.status, client.body().strip()
        said = client.receive_text()
        client.leave()
        return said


@pytest.mark.parametrize(
    ("rule", "path", "values"),
    [
        ("/ws/rooms/<name>", "/ws/rooms/lobby", {"name": "lobby"}),
        ("/ws/rooms/<name>", "/ws/rooms/caf%C3%A9%20%3C1%3E", {"name": "café <1>"}),
        ("/ws/rooms/<name>", "/ws/rooms/%3Cname%3E", {"name": "<name>"}),
        ("/ws/rooms/<name>", "/ws/rooms/%25", {"name": "%"}),
        ("/ws/rooms/<name>", "/ws/rooms/100%2525", {"name": "100%25"}),
        ("/ws/é/<name>", "/ws/%C3%A9/x", {"name": "x"}),
        ("/ws/games/<int:id>", "/ws/games/0042", {"id": 42}),
        ("/ws/games/<int(signed=True):id>", "/ws/games/-7", {"id": -7}),
        ("/ws/at/<float:x>", "/ws/at/1.5", {"x": 1.5}),
        ("/ws/files/<path:file>", "/ws/files/a/b%2Fc.txt", {"file": "a/b/c.txt"}),
        ("/ws/files/<path:file>/edit", "/ws/files/a/b/edit", {"file": "a/b"}),
        ("/ws/by/<uuid:id>", f"/ws/by/{AN_ID}", {"id": uuid.UUID(AN_ID)}),
        ('/ws/<any(de,"pt?BR"):language>', "/ws/pt%3FBR", {"language": "pt?BR"}),
        ("/ws/<string(length=2):code>", "/ws/de", {"code": "de"}),
        ("/ws/<a>-<b>/<int:c>.json", "/ws/x-y/3.json", {"a": "x", "b": "y", "c": 3}),
        ("/<name>/", "/x/", {"name": "x"}),
    ],
)
def test_a_path_gives_the_parameters_of_its_rule(rule, path, values):
    app = WebSocketApp()
    app.add_handler(rule, Where)
    with serving(app) as port, connect(f"ws://127.0.0.1:{port}{path}") as client:
        assert client.recv(DEADLINE_S) == repr(values)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("/ws/rooms/<name>", "/ws/rooms/a%2Fb"),  # a server decodes the path before an application sees it
        ("/ws/rooms/<name>", "/ws/rooms/a/b"),
        ("/ws/rooms/<name>", "/ws/rooms"),
        ("/ws/games/<int:id>", "/ws/games/-7"),
        ("/ws/games/<int:id>", "/ws/games/1.0"),
        ("/ws/games/<int:id>", f"/ws/games/{'9' * 5000}"),
        ("/ws/at/<float:x>", f"/ws/at/{'9' * 400}.0"),
        ("/ws/by/<uuid:id>", f"/ws/by/{AN_ID[:-1]}"),
    ],
)
def test_a_path_that_does_not_match_is_a_404(rule, path):
    with served(rule) as (_, port):
        status, _ = asked(port, path)
        assert status == 404


def test_what_has_no_parameters_has_an_empty_mapping_that_nobody_can_change():
    class Frank(Named):
        def on_open(self, session):
            for parameters in (session.path_parameters, session.request.path_parameters):
                with pytest.raises(TypeError):
                    parameters["name"] = "eve"
                with pytest.raises(AttributeError):
                    session.path_parameters = {}
            super().on_open(session)

    app = WebSocketApp()
    app.add_handler("/ws/plain", Frank("plain"))
    app.add_handler("/ws/of/<name>", Frank("of"))
    with play(app) as frank:
        assert frank.connect("/ws/plain").take() == ["plain {}"]
        assert frank.connect("/ws/of/ann").take() == ["of {'name': 'ann'}"]


def test_an_exact_path_wins_and_then_the_more_specific_rule():
    rules = ["/<path:rest>", "/ws/<name>", "/ws/<int:id>", "/ws/lobby"]
    for order in (rules, rules[::-1]):
        with served(*order) as (_, port):
            assert asked(port, "/ws/lobby") == "/ws/lobby {}"
            assert asked(port, "/ws/12") == "/ws/<int:id> {'id': 12}"
            assert asked(port, "/ws/x") == "/ws/<name> {'name': 'x'}"
            assert asked(port, "/ws/x/y") == "/<path:rest> {'rest': 'ws/x/y'}"


def test_two_rules_for_the_same_paths_are_refused():
    app = WebSocketApp()
    app.add_handler("/ws/<name>", Echo())
    for same in ("/ws/<other>", "/ws/<string:name>", "/ws/<default:name>"):
        with pytest.raises(ConfigError, match=f"{same} matches the same paths as /ws/<name>, .* by Echo"):
            app.add_handler(same, Echo())
    with pytest.raises(ConfigError, match="/ws/<name> is already served by Echo"):
        app.add_handler("/ws/<name>", Echo())
    app.add_handler("/ws/<int:name>", Echo())
    app.add_handler("/ws/<string(length=2):name>", Echo())
    assert len(app.endpoints) == 3


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("/ws/<", "malformed"),
        ("/ws/<>", "malformed"),
        ("/ws/<1a>", "malformed"),
        ("/ws/a<b", "malformed"),
        ("/ws/<int:>", "malformed"),
        ("/ws/<number:id>", "number"),
        ("/ws/<int(least=3):id>", "least"),
        ("/ws/<string(length=x):id>", "x"),
        ("/ws/<string(minlength=3,maxlength=2):id>", "repeat"),
    ],
)
def test_a_rule_that_is_no_good_is_refused_when_it_is_added(rule, why, tmp_path):
    (tmp_path / "chat.js").write_text("export function onOpen(session) {}")
    for add in (lambda: WebSocketApp().add_handler(rule, Echo()), lambda: create_app(tmp_path / "chat.js", path=rule)):
        with pytest.raises(ConfigError) as caught:
            add()
        assert f"the path of an endpoint is not a rule of werkzeug, {rule!r}: " in str(caught.value)
        assert why in str(caught.value).partition(": ")[2]


def test_a_rule_has_each_parameter_once():
    with pytest.raises(ConfigError, match="must not have two parameters of the same name: '/ws/<a>/<int:a>'"):
        WebSocketApp().add_handler("/ws/<a>/<int:a>", Echo())


@pytest.mark.parametrize("path", ["ws/<name>", "<name>", "/ws/<name>?a", "/ws/<name>#a", "/ws?a/<name>"])
def test_a_rule_begins_with_a_slash_and_has_no_query(path):
    with pytest.raises(ConfigError, match="the path of an endpoint must") as caught:
        WebSocketApp().add_handler(path, Echo())
    assert repr(path) in str(caught.value)


def test_a_script_that_does_not_load_leaves_no_rule_behind(tmp_path):
    (tmp_path / "bad.js").write_text("export function onOpen(")
    app = WebSocketApp()
    with pytest.raises(Exception, match=r"bad\.js"):
        app.add_script("/ws/<name>", tmp_path / "bad.js")
    app.add_handler("/ws/<other>", Named("other"))
    with play(app) as chat:
        assert chat.connect("/ws/x").take() == ["other {'other': 'x'}"]


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/ws/rooms/Lobby/", "/ws/rooms/Lobby"),
        ("/ws//rooms/Lobby", "/ws/rooms/Lobby"),
        ("/WS/Rooms/Lobby", "/ws/rooms/Lobby"),
        ("/ws/rooms/Lobby/%3Fa=b", "/ws/rooms/Lobby"),
        ("/ws/rooms/Lobby%20", None),
        ("/ws/games/7/", "/ws/games/7"),
        ("/ws/in/x", "/ws/in/x/"),
    ],
)
@pytest.mark.parametrize("inside", [None, lambda environ, start: start("404 Not Found", []) or [b""]])
def test_a_path_that_is_nearly_right_is_a_404_that_names_the_right_one_and_no_redirect(inside, path, near, caplog):
    caplog.set_level(logging.INFO, "wsthreads")
    with served("/ws/rooms/<name>", "/ws/games/<int:id>", "/ws/in/<name>/", inside=inside) as (_, port):
        if near is None:
            assert asked(port, path).startswith("/ws/rooms/<name> {")  # a name may end in a space
            return
        status, text = asked(port, path)
    assert status == 404
    assert text.startswith("there is no WebSocket endpoint at /")
    assert text.endswith(f"; did you mean {near}?")
    assert text.partition("; ")[2] in caplog.text


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/ws/games/lobby", "'lobby' is not <int:id> of /ws/games/<int:id>"),
        ("/ws/games/", "'' is not <int:id> of /ws/games/<int:id>"),
        ("/ws/Games/x/", "'x' is not <int:id> of /ws/games/<int:id>"),
        ("/ws/few/17", "'17' is not <int(max=9):n> of /ws/few/<int(max=9):n>/<name>"),
        ("/ws/games/" + "x" * 100, "'" + "x" * 79),
        ("/ws/by/1", "'1' is not <uuid:id> of /ws/by/<uuid:id>"),
        ("/ws/games/a%0Ab", "'a\\nb' is not <int:id> of /ws/games/<int:id>"),
    ],
)
def test_a_value_that_does_not_fit_is_named(path, what, caplog):
    caplog.set_level(logging.INFO, "wsthreads")
    if path == "/ws/few/17":
        path += "/x"
    with served("/ws/games/<int:id>", "/ws/few/<int(max=9):n>/<name>", "/ws/by/<uuid:id>") as (_, port):
        status, text = asked(port, path)
        assert status == 404
        assert f"; {what}" in text
        assert what.replace("\\", "\\") in caplog.text


def test_a_very_long_path_is_answered_soon():
    with served("/ws/<a>-<b>-<c>-<d>/x", "/f/<path:a>/<path:b>/<path:c>/x") as (_, port):
        began = perf_counter()
        for long in ("-" * 60_000, "/f" + "/" * 60_000 + "%0A", "/ws/" + "-" * 450 + "/", "/f/" + "a/" * 200 + "%0A"):
            assert asked(port, f"/ws/{long}" if long[0] == "-" else long)[0] == 404
        assert perf_counter() - began < DEADLINE_S


def test_rules_do_not_hide_the_pages_of_the_server():
    tokens = {"metrics_token": "a-token-of-this-test", "dashboard_token": "a-token-of-this-test"}
    app = WebSocketApp(serve_health=True, serve_metrics=True, serve_client=True, **tokens)
    app.add_handler("/<path:anything>", Named("any"))
    app.add_handler("/<one>", Named("one"))
    with serving(app) as port:
        for path, what in (("/healthz", b"ok"), ("/readyz", b"ready"), ("/wsthreads.js", b"Reconnecting"),
                           ("/_wsthreads/", b"<title>")):  # fmt: skip
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE_S) as answer:
                assert what in answer.read()
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S)
        assert asked(port, "/x") == "one {'one': 'x'}"
        with pytest.raises(ConfigError, match="belongs to the dashboard"):
            app.add_handler("/_wsthreads/<x>", Echo())


def test_pages_of_the_application_inside_are_seen_though_a_rule_matches_their_paths():
    def site(environ, start_response):
        status = "200 OK" if environ["PATH_INFO"] == "/login" else "404 Not Found"
        start_response(status, [("Content-Type", "text/plain")])
        return [b"log in here"]

    with served("/<room>", inside=site) as (_, port):
        with urlopen(f"http://127.0.0.1:{port}/login", timeout=DEADLINE_S) as answer:
            assert answer.read() == b"log in here"
        assert asked(port, "/login") == "/<room> {'room': 'login'}"
    with served("/<room>") as (_, port), pytest.raises(HTTPError, match="400"):
        urlopen(f"http://127.0.0.1:{port}/login", timeout=DEADLINE_S)


def test_rooms_and_numbers_belong_to_the_rule():
    app = WebSocketApp()
    endpoint = app.add_handler("/ws/rooms/<name>", Where)
    with play(app, "/ws/rooms/<name>") as chat:
        ann, bob = chat.connect("/ws/rooms/a"), chat.connect(path="/ws/rooms/b")
        for client in (ann, bob):
            client.send("hi")
        assert ann.take()[1:] == ["hi", "hi"]
        assert bob.take()[1:] == ["hi"]
        assert endpoint.rooms.sizes() == {"all": 2}
        assert chat.room("all").members() == chat.room("all", path="/ws/rooms/c").members() == 2
        assert app.endpoint("/ws/rooms/<name>") is endpoint
        assert ann.session.request_path == "/ws/rooms/a"
        with pytest.raises(KeyError, match="no endpoint '/ws/rooms/a'; there are: /ws/rooms/<name>"):
            app.endpoint("/ws/rooms/a")
        assert endpoint.session_count() == 2


def test_a_line_of_the_log_names_the_rule(caplog):
    class Bad(Where):
        def on_message(self, session, message):
            raise ValueError(message)

    caplog.set_level(logging.INFO, "wsthreads")
    with play(Bad, "/ws/rooms/<name>", raise_errors=False) as chat:
        chat.connect("/ws/rooms/a").send("oh")
    records = [record for record in caplog.records if hasattr(record, "endpoint")]
    assert {record.endpoint for record in records} == {"/ws/rooms/<name>"}
    assert any("opened on /ws/rooms/<name> from" in record.getMessage() for record in records)


def test_play_connects_to_a_path_and_says_which_are_possible():
    with play(Where, "/ws/rooms/<name>/<int:n>") as chat:
        assert chat.connect("/ws/rooms/a/1?b=c").session.get_parameter("b") == "c"
        assert chat.connect("/ws/rooms/a/1", b="c").session.get_parameter("b") == "c"
        with pytest.raises(UsageError, match="has parameters: connect to a path such as /ws/rooms/name/1"):
            chat.connect()
        with pytest.raises(UsageError, match="one path, not two"):
            chat.connect("/ws/rooms/a/1", path="/ws/rooms/b/1")
        with pytest.raises(HandshakeRefused, match="404 there is no WebSocket endpoint at /ws/else"):
            chat.connect("/ws/else")
        with pytest.raises(HandshakeRefused, match=r"404 .*'b' is not <int:n> of /ws/rooms/<name>/<int:n>"):
            chat.connect("/ws/rooms/a/b")


def test_a_live_server_serves_a_rule():
    with live_server(Where, "/ws/rooms/<name>") as server, connect(f"{server.ws_url}/ws/rooms/a") as client:
        assert client.recv(DEADLINE_S) == "{'name': 'a'}"


def test_a_mounted_app_matches_what_is_below_its_mount(tmp_path):
    app = WebSocketApp()
    app.add_handler("/rooms/<name>", Where)

    def mounted(environ, start_response):
        environ["SCRIPT_NAME"] = "/below"
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/below")
        return app(environ, start_response)

    with serving(mounted) as port:
        assert asked(port, "/below/rooms/a") == "{'name': 'a'}"
        assert asked(port, "/below/rooms/a/")[1].endswith("; did you mean /below/rooms/a?")


def test_the_examples_of_the_page_run(tmp_path):
    names = {"websockets": WebSocketApp()}
    example, checked = blocks("docs/how-to/paths", "python")
    exec(example, names)
    script, checked_script = blocks("docs/how-to/paths", "javascript")
    (tmp_path / "tables.js").write_text(script)
    for target, path in ((names["websockets"], None), (tmp_path / "tables.js", "/ws/rooms/<name>/<int:table>")):
        with play(target, path) as tables:
            guest = tables.connect("/ws/rooms/blue/4")
            assert guest.take() == ["you are at table 4 of blue"]
            assert guest.session.rooms() == ["blue/4"]
    exec(checked, names)
    (tmp_path / "halls.js").write_text(checked_script)
    for target, path in ((names["websockets"], None), (tmp_path / "halls.js", "/ws/halls/<name>")):
        with play(target, path) as halls:
            assert halls.connect("/ws/halls/blue hall").session.rooms() == ["blue hall"]
            for name in ("%00", "a%00", "x" * 257, "x" * 41):
                with pytest.raises(HandshakeRefused, match="404"):
                    halls.connect(f"/ws/halls/{name}")


def test_a_script_gets_values_as_json_has_them(tmp_path):
    (tmp_path / "where.js").write_text("""
        const seen = (visitor) => ["name", "n", "x", "id", "missing", "toString", "__proto__"]
          .map((name) => visitor.getPathParameter(name));
        export function onHandshake(request) { request.setAttribute("seen", seen(request)); }
        export function onOpen(session) { session.send(JSON.stringify([session.getAttribute("seen"), seen(session)])); }
        export function onMessage(session) { setTimeout(() => session.send(JSON.stringify(seen(session)))); }
    """)
    with play(tmp_path / "where.js", "/ws/<name>/<int(signed=True):n>/<float:x>/<uuid:id>") as chat:
        client = chat.connect(f"/ws/a 'ü\u2028😀\"/-3/0.5/{AN_ID}")
        values = ["a 'ü\u2028😀\"", -3, 0.5, AN_ID, None, None, None]
        assert client.take_json() == [[values, values]]
        client.send("again")
        assert json.loads(client.receive()) == values
        many = chat.connect(f"/ws/caf%C3%A9/9007199254740993/{9 * 10**300}.5/{AN_ID}").take_json()[0][0]
        assert many == ["café", "9007199254740993", "9e+300", AN_ID, None, None, None]
    with play(tmp_path / "where.js") as chat:
        assert chat.connect().take_json() == [[[None] * 7] * 2]
    with play(tmp_path / "where.js", "/ws/<__proto__>/<toString>") as chat:
        assert chat.connect("/ws/a/b").take_json() == [[[None, None, None, None, None, "b", "a"]] * 2]


def test_the_command_line_serves_checks_and_connects_to_a_rule(tmp_path):
    (tmp_path / "where.py").write_text("def on_open(session): session.send(session.path_parameters['name'])\n")
    with run_server("where.py", "--path", "/ws/rooms/<name>", cwd=tmp_path) as server:
        server.wait_for(re.escape(f"{server.ws_url}/ws/rooms/<name>"))
        with connect(f"{server.ws_url}/ws/rooms/a") as client:
            assert client.recv(DEADLINE_S) == "a"
        talked = wsthreads("connect", f"{server.ws_url}/ws/rooms/b c")
        assert "b c" in talked.stdout
        lost = wsthreads("connect", f"{server.ws_url}/ws/rooms/b/")
        assert lost.returncode == 1
        assert "did you mean /ws/rooms/b?" in lost.stderr
    checked = wsthreads("check", "--path", "/ws/rooms/<name>", "where.py", cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "where.py  /ws/rooms/<name>  on_open\n")


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_command_line_refuses_a_rule_that_is_no_good_in_one_line(command, tmp_path):
    (tmp_path / "where.py").write_text("def on_open(session): pass\n")
    done = wsthreads(command, "--path", "/ws/<number:id>", "where.py", cwd=tmp_path)
    assert done.returncode != 0
    assert "the path of an endpoint is not a rule of werkzeug, '/ws/<number:id>'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 4


def test_a_broadcast_over_redis_names_the_rule(redis_server):
    app = WebSocketApp(redis=redis_server.url)
    rule = "/ws/rooms/<name>"
    app.add_handler(rule, Where)
    with serving(app) as port, connect(f"ws://127.0.0.1:{port}/ws/rooms/a") as client:
        assert client.recv(DEADLINE_S) == "{'name': 'a'}"
        client.send("joined")
        assert client.recv(DEADLINE_S) == "joined"
        assert RedisBroker(redis_server.url).room(rule, "all").members() == 1
        done = wsthreads("publish", "all", "hello", "--endpoint", rule, "--redis", redis_server.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert client.recv(DEADLINE_S) == "hello"


def test_endpoints_are_listed_while_another_thread_adds_some():
    """Without a GIL, one step of C code over a dict sees that another thread changes it."""
    routing, over = Routing(), Event()
    first = SimpleNamespace(path="/ws/first")
    routing.add(first)

    def change():
        others = [SimpleNamespace(path=f"/ws/{n}") for n in range(100)]
        while not over.is_set():
            for change in (routing.add, routing.remove):
                for other in others:
                    change(other)

    def look():
        try:
            for _ in range(3000):
                assert first in routing.endpoints
                assert first.path in routing.paths
                assert routing.hint("/WS/first") == first.path
        finally:
            over.set()

    run_all(change, look)
