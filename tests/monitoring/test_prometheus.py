"""``/metrics``, as prometheus-client's own parsers read it, in one process and in several."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from urllib.request import Request, urlopen

import prometheus_client
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

import wsthreads
from tests.programs import DEADLINE_S, PROGRAM_S, Browser, Program, connect, receive, wait_until
from tests.speakers import Speaker
from tests.wire import PONG, TEXT, RawClient, Recorder, close_payload, endpoint, serving
from wsthreads import ConfigError, HandshakeRefused, RedisBroker, WebSocketApp, create_app
from wsthreads.cli.deployment import Served, deployment_files
from wsthreads.cli.scaffold import scaffold
from wsthreads.monitoring.families import _COUNTED, families
from wsthreads.monitoring.prometheus import WebSocketCollector
from wsthreads.threads.gil import has_gil

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def get(port, path="/metrics", **headers):
    with urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=PROGRAM_S) as answer:
        return answer.read().decode()


INFO = {
    "version": wsthreads.__version__,
    "python": platform.python_version(),
    "gil": "on" if has_gil() else "off",
}


def checked(text):
    """{(name, labels): value}, of an exposition that promtool would pass."""
    found, names = {}, set()
    for family in parse(text):
        assert family.name not in names, f"{family.name} is there twice"
        names.add(family.name)
        assert family.type in ("counter", "gauge", "histogram", "summary", "info"), family.name
        assert family.documentation, family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
            if family.name.startswith("wsthreads_"):
                assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
    buckets = {}
    for (name, labels), value in found.items():
        if name.endswith("_bucket"):
            plain = tuple(pair for pair in labels if pair[0] != "le")
            buckets.setdefault((name.removesuffix("_bucket"), plain), []).append((float(dict(labels)["le"]), value))
    for (name, labels), steps in buckets.items():
        counts = [count for _, count in sorted(steps)]
        assert counts == sorted(counts), f"{name}: buckets are cumulative"
        assert counts[-1] == found[name + "_count", labels]
        assert (name + "_sum", labels) in found
    return found


def value(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))))


TEST, HERE = {"endpoint": "/ws/test"}, {"endpoint": "/ws/chat"}


class Chat(Recorder):
    def on_handshake(self, request):
        return 418 if request.get_parameter("tea") else None

    def on_open(self, session):
        session.room("chat").join()
        super().on_open(session)

    def on_message(self, session, message):
        super().on_message(session, message)
        if message == "fail":
            raise ValueError(message)
        session.room("chat").broadcast(message)


def test_it_tells_what_has_happened():
    with endpoint(Chat(), serve_metrics=True, ping_interval_s=0.1) as (app, port):
        here = TEST
        with RawClient(port) as client:
            client.text("fail")
            client.text("hello")
            heard = set()
            while (TEXT, b"hello") not in heard or not app.endpoint("/ws/test").totals().round_trips:
                heard.add(client.receive())
                client.send(PONG, b"")  # to each ping, whatever comes first; others change nothing
            for bad in ("/ws/test?tea=1", "/ws/test"):
                with RawClient(port, bad, {"Origin": "https://evil.example"} if "tea" not in bad else {}) as refused:
                    assert refused.status in (403, 418)
            with RawClient(port) as another:
                another.send(8, close_payload(4123))
                another.receive_close()
            it = app.endpoint("/ws/test")
            wait_until(lambda: it.totals().closed and it.totals().messages_out == 1, "what has been counted")
            wait_until(lambda: len(it.totals().refused) == 2 and it.totals().handler_seconds["on_message"].count == 2)
            found = checked(get(port))
        assert value(found, "wsthreads_sessions", **here) == 1
        assert value(found, "wsthreads_sessions_opened_total", **here) == 2
        assert value(found, "wsthreads_sessions_closed_total", **here, code="4xxx") == 1
        assert value(found, "wsthreads_rooms", **here) == value(found, "wsthreads_room_members", **here) == 1
        assert value(found, "wsthreads_messages_received_total", **here) == 2
        assert value(found, "wsthreads_messages_sent_total", **here) == 1
        assert value(found, "wsthreads_broadcasts_total", **here) == 1
        assert value(found, "wsthreads_deliveries_total", **here) == 1
        assert value(found, "wsthreads_received_bytes_total", **here) > 0
        assert value(found, "wsthreads_sent_bytes_total", **here) > 0
        assert value(found, "wsthreads_outbox_bytes", **here) == 0
        refused = "wsthreads_handshakes_refused_total"
        assert value(found, refused, **here, status="418", cause="handler") == 1
        assert value(found, refused, **here, status="403", cause="origin") == 1
        assert value(found, "wsthreads_handler_errors_total", **here, kind="exception") == 1
        assert value(found, "wsthreads_handler_errors_total", **here, kind="deadline") == 0
        assert value(found, "wsthreads_handler_seconds_count", **here, function="on_message") == 2
        assert value(found, "wsthreads_handler_seconds_bucket", **here, function="on_message", le="+Inf") == 2
        assert value(found, "wsthreads_ping_round_trip_seconds_count", **here) >= 1
        assert value(found, "wsthreads_session_places") == 1000
        assert value(found, "wsthreads_info", **INFO) == 1
        assert value(found, "process_open_fds") > 0, "what prometheus-client tells of a process by itself"


def test_histories_and_replaced_messages_are_counted():
    chat = Chat()
    with endpoint(chat, serve_metrics=True, history_messages=2) as (app, port):
        room = app.endpoint("/ws/test").room("table")
        assert value(checked(get(port)), "wsthreads_history_messages", **TEST) == 0
        with RawClient(port, receive_buffer=4096):
            session = chat.session()
            for text in ("one", "three", "ä"):
                room.broadcast(text)
            room.broadcast("not kept", keep=False)
            while session._outbox.latest_replaced < 5:
                session.send("x" * 50_000, latest="a")
            found = checked(get(port))
        assert value(found, "wsthreads_history_messages", **TEST) == 2
        assert value(found, "wsthreads_history_bytes", **TEST) == 5 + 2
        assert value(found, "wsthreads_latest_replaced_total", **TEST) == 5


def test_suspended_sessions_resumes_and_why_there_was_none_are_counted():
    chat = Chat()
    with endpoint(chat, serve_metrics=True, resume_s=60) as (app, port):
        it = app.endpoint("/ws/test")

        def told(name, **labels):
            return value(checked(get(port)), f"wsthreads_{name}", **TEST, **labels)

        counted = ("suspended_sessions", "sessions_suspended_total", "sessions_resumed_total", "unacknowledged_bytes")
        assert [told(name) for name in counted] == [0, 0, 0, 0], "from the start, so that a rate can be taken"
        with Speaker(port).begin() as client:
            session = chat.session()
            for text in ("one", "two"):
                session.send(text)
            client.all(2)
            assert told("unacknowledged_bytes") == 10
            client.lose()
            wait_until(lambda: it.totals().counters.get("sessions_suspended") == it.totals().suspended == 1)
            session.send("three")
            assert [told(name) for name in counted] == [1, 1, 0, 17]
            assert told("sessions") == 1
            assert told("outbox_bytes") == 7
            assert client.come_back().resumed
            assert client.next() == "three"
            client.ack()
            wait_until(lambda: told("unacknowledged_bytes") == 0)
            assert [told(name) for name in counted] == [0, 1, 1, 0]
            assert told("messages_sent_total") == 3
            token = client.token
            client.leave()
        with Speaker(port) as late:
            assert late.come_back(token, 3).why == "unknown"
            assert told("resumes_refused_total", why="unknown") == 1
            assert told("sessions_opened_total") == 2


def test_a_history_that_is_off_has_no_metric():
    with endpoint(Recorder(), serve_metrics=True) as (_, port):
        found = checked(get(port))
    assert value(found, "wsthreads_history_messages", **TEST) is None
    assert value(found, "wsthreads_rooms", **TEST) == 0


class Guests(Recorder):
    def on_handshake(self, request):
        request.user = request.get_parameter("user")


def test_users_presence_kicks_and_bans_are_counted():
    with endpoint(Guests(), serve_metrics=True) as (app, port), ExitStack() as stack:
        it = app.endpoint("/ws/test")

        def told(name, **labels):
            return value(checked(get(port)), name, **TEST, **labels)

        counted = ("wsthreads_users", *(f"wsthreads_{name}_total" for name in ("presence_changes", "kicks", "bans")))
        assert [told(name) for name in counted] == [0, 0, 0, 0], "from the start, so that a rate can be taken"
        for user in ("ann", "ann", "bob", ""):
            stack.enter_context(RawClient(port, f"/ws/test?user={user}" if user else "/ws/test"))
        wait_until(lambda: it.totals().opened == 4)
        assert [told(name) for name in counted] == [2, 0, 0, 0]
        assert (it.totals().users, it.totals().rooms) == (2, 0)
        for session in it.sessions():
            session.room("chat").join(presence=1)
        session.room("chat").leave()
        assert told("wsthreads_presence_changes_total") == 5
        it.user("ann").close(4001, ban_s=60)
        wait_until(lambda: it.totals().sessions == 2)
        assert [told(name) for name in counted[:1] + counted[2:]] == [1, 2, 1]
        with RawClient(port, "/ws/test?user=ann") as refused:
            assert refused.status == 403
        assert told("wsthreads_handshakes_refused_total", status="403", cause="banned") == 1


class Game(Recorder):
    tick_rate = 60

    def on_open(self, session):
        session.room("lobby").join()

    def on_post(self, room, value, sender):
        """Takes the value."""

    def on_tick(self, room, dt):
        """Takes no time."""


def test_owned_rooms_their_posts_and_ticks_are_counted():
    with endpoint(Game(), serve_metrics=True) as (app, port):
        it = app.endpoint("/ws/test")

        def told(name):
            return value(checked(get(port)), f"wsthreads_{name}", **TEST)

        counted = ("owned_rooms", "posts_waiting", "posts_total", "owner_changes_total", "ticks_skipped_total")
        assert [told(name) for name in counted] == [0] * 5
        assert told("tick_lag_seconds_count") == 0
        with RawClient(port, "/ws/test"):
            wait_until(lambda: told("tick_lag_seconds_count") >= 3)
            it.room("lobby").post(1)
            assert [told(name) for name in counted[:4]] == [1, 0, 1, 1]
            ticks = value(checked(get(port)), "wsthreads_handler_seconds_count", function="on_tick", **TEST)
            assert 0 < ticks <= told("tick_lag_seconds_count") + told("ticks_skipped_total")
        wait_until(lambda: told("owned_rooms") == 0)


def test_openmetrics_is_spoken_with_those_who_ask_for_it():
    with endpoint(Chat(), serve_metrics=True) as (_, port):
        text = get(port, Accept=OPENMETRICS)
        assert text.endswith("# EOF\n")
        names = {family.name for family in parse_openmetrics(text)}
        assert {"wsthreads_sessions", "wsthreads_broadcasts", "wsthreads_handler_seconds"} <= names


def test_a_script_has_a_heap_and_times_under_the_same_names(tmp_path):
    file = tmp_path / "chat.js"
    file.write_text("export function onMessage(session, message) { session.send(message); }")
    app = create_app(file, serve_metrics=True)
    try:

        def told(name, **labels):
            return value(checked(Browser(app).get("/metrics").text), name, **HERE, **labels)

        heap = wait_until(lambda: told("wsthreads_script_heap_bytes"))
        assert 10_000 < heap < 128 * 1024 * 1024
        assert told("wsthreads_handler_seconds_count", function="on_message") == 0
        assert told("wsthreads_handler_seconds_count", function="on_open") is None, "it has none"
    finally:
        app.shutdown(0)


def test_a_script_tells_how_long_its_calls_wait_for_others(tmp_path):
    file = tmp_path / "chat.js"
    file.write_text("export function onMessage(session, message) { session.send(message); }")
    app = WebSocketApp(serve_metrics=True)
    app.add_script("/ws/test", file)
    app.add_handler("/ws/chat", Recorder())
    with serving(app) as port:

        def told(name, **labels):
            return value(checked(get(port)), f"wsthreads_script_wait_seconds_{name}", **labels)

        assert told("count", **TEST) == 0
        assert told("count", **HERE) is None, "Python's calls do not wait for each other"
        with RawClient(port):
            wait_until(lambda: told("count", **TEST))
            assert 0 < told("sum", **TEST) < DEADLINE_S


def test_what_clients_choose_is_no_label():
    with endpoint(Recorder(), serve_metrics=True, max_rooms_per_session=1) as (app, port):
        it = app.endpoint("/ws/test")
        for code in (1000, 3000, 3500, 4000, 4999, 1008, 2500):
            with RawClient(port, f"/ws/test?name={code}") as client:
                client.send(8, close_payload(code))
                client.receive_close()
        wait_until(lambda: it.totals().sessions == 0)
        codes = {
            dict(labels)["code"] for name, labels in checked(get(port)) if name == "wsthreads_sessions_closed_total"
        }
        assert codes <= {"1000", "1002", "1008", "3000", "3xxx", "4xxx", "other"}
        assert {"1000", "1008", "3000", "3xxx", "4xxx"} <= codes, "3000 is one that the server sends, too"


def test_a_limit_that_was_gone_past_counts_by_its_setting():
    class Joins(Recorder):
        def on_message(self, session, message):
            session.room(message).join()

    with endpoint(Joins(), serve_metrics=True, max_rooms_per_session=1) as (app, port), RawClient(port) as client:
        client.text("one")
        client.text("two")
        wait_until(lambda: app.endpoint("/ws/test").totals().errors)
        found = checked(get(port))
        assert value(found, "wsthreads_limit_exceeded_total", setting="max_rooms_per_session") == 1


def test_endpoints_of_any_name_are_told_of():
    app = WebSocketApp(serve_metrics=True)
    path = '/ws/"quoted" \\ and\nbroken ü'
    app.add_handler(path, Recorder())
    assert value(checked(Browser(app).get("/metrics").text), "wsthreads_sessions", endpoint=path) == 0


# Who may see it, and where.


def test_a_token_is_asked_for_where_there_is_one(monkeypatch):
    def status(app, *authorization):
        return Browser(app).get("/metrics", headers=[("Authorization", each) for each in authorization]).status_code

    app = WebSocketApp(serve_metrics=True, metrics_token="s3cret")
    assert status(app) == status(app, "Bearer wrong") == status(app, "Basic s3cret") == 401
    assert status(app, "Bearer sécret") == status(app, "Bearer") == 401
    assert Browser(app).get("/metrics").headers["WWW-Authenticate"] == "Bearer"
    assert status(app, "Bearer s3cret") == status(app, "bearer s3cret") == 200
    assert "s3cret" not in repr(app.config)
    monkeypatch.setenv("WSTHREADS_METRICS_TOKEN", "other")
    assert status(WebSocketApp(serve_metrics=True), "Bearer other") == 200
    assert status(WebSocketApp(serve_metrics=True)) == 401


@pytest.mark.parametrize("token", ["with space", "ünicode", "line\n"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token):
    with pytest.raises(ConfigError, match="metrics_token") as caught:
        WebSocketApp(metrics_token=token)
    assert token not in str(caught.value)


def test_it_is_read_and_nothing_else():
    app = WebSocketApp(serve_metrics=True)
    assert Browser(app).head("/metrics").status_code == 200
    answer = Browser(app).post("/metrics")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_it_is_off_unless_asked_for_and_an_endpoint_comes_first():
    def site(environ, start_response):
        start_response("200 OK", [])
        return [b"the site's own"]

    assert Browser(WebSocketApp(site)).get("/metrics").text == "the site's own"
    assert Browser(WebSocketApp()).get("/metrics").status_code == 404
    app = WebSocketApp(serve_metrics=True)
    app.add_handler("/metrics", Recorder())
    assert Browser(app).get("/metrics").status_code == 501


def test_without_prometheus_client_it_says_what_to_install():
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from wsthreads import WebSocketApp\n"
        "WebSocketApp(serve_metrics=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PROGRAM_S)
    assert "ConfigError: serve_metrics needs prometheus-client: pip install 'wsthreads[prometheus]'" in done.stderr


def test_a_registry_of_ones_own_can_have_them():
    with endpoint(Chat()) as (app, port), RawClient(port):
        registry = prometheus_client.CollectorRegistry()
        registry.register(WebSocketCollector(app))

        def told():
            return value(checked(prometheus_client.generate_latest(registry).decode()), "wsthreads_sessions", **TEST)

        wait_until(lambda: told() == 1)


# Several processes.


class Workers(Program):
    def __init__(self, directory, *, workers=2):
        command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "102"]
        command += ["-w", str(workers), "--bind", "127.0.0.1:0", "--graceful-timeout", "5", "tests.prometheus_app:app"]
        super().__init__(command, env={"PROMETHEUS_MULTIPROC_DIR": str(directory)} if directory else {})
        self.port = int(self.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        self.wait_for("Booting worker with pid", times=workers)

    def join(self, stack, query=""):
        client = stack.enter_context(connect(f"ws://127.0.0.1:{self.port}/ws/chat{query}"))
        return client, int(receive(client).removeprefix("process "))


def test_a_scrape_of_any_worker_has_the_numbers_of_all(tmp_path):
    with Workers(tmp_path) as server, ExitStack() as stack:
        clients = {}
        while len(clients) < 2 or sum(map(len, clients.values())) < 6:
            client, process = server.join(stack)
            clients.setdefault(process, []).append(client)
            assert sum(map(len, clients.values())) < 90, "all in one worker"
        everybody = [client for some in clients.values() for client in some]
        for client in everybody:
            for _ in range(3):
                client.send("hello")
                assert receive(client) == "hello"

        def told(name, **labels):
            return value(checked(get(server.port)), name, **HERE, **labels)

        # Who has just been scraped is exact; what the other one has left is some seconds old.
        timed = {"function": "on_message"}
        for name, labels in (("messages_received_total", {}), ("handler_seconds_count", timed)):
            wait_until(lambda name=name, labels=labels: told(f"wsthreads_{name}", **labels) == 3 * len(everybody), name)
        for _ in range(4):
            assert told("wsthreads_sessions") == len(everybody)
            assert told("wsthreads_handler_seconds_count", **timed) == 3 * len(everybody)
            assert told("wsthreads_rooms") == 2
        assert value(checked(get(server.port)), "wsthreads_session_places") == 200
        assert value(checked(get(server.port)), "wsthreads_info", **INFO) == 2

        # A worker that is killed has counted what it has, and has nothing now.
        (killed, gone), (_, left) = clients.items()
        os.kill(killed, signal.SIGKILL)
        server.wait_for("Booting worker with pid", times=3)
        wait_until(lambda: told("wsthreads_sessions") == len(left), "the dead one's sessions are gone")
        assert told("wsthreads_messages_received_total") == 3 * len(everybody)
        assert not list(tmp_path.glob(f"gauge_*_{killed}.db"))
        for client in gone:
            client.close()
        for client in left:
            client.close()
        wait_until(lambda: told("wsthreads_sessions") == 0)
        wait_until(lambda: told("wsthreads_sessions_closed_total", code="1000") == len(left))
        assert server.end() == 0
        assert not list(tmp_path.glob("gauge_live*.db")), "workers that end in order clean up"
        assert "Traceback" not in server.log


def test_users_of_a_dead_worker_are_gone_and_its_kicks_stay_counted(tmp_path):
    with Workers(tmp_path) as server, ExitStack() as stack:
        clients = {}
        for n in range(90):
            client, process = server.join(stack, f"?user=user-{n}")
            clients.setdefault(process, []).append((f"user-{n}", client))
            if len(clients) == 2 and min(map(len, clients.values())) >= 2:
                break

        def told(name, **labels):
            return value(checked(get(server.port)), name, **HERE, **labels)

        for some in clients.values():
            (kicked, _), (_, by) = some[:2]
            by.send(f"ban {kicked}")
            assert receive(by) == f"ban {kicked}"
        total = sum(map(len, clients.values()))
        # What the worker that is not scraped has left is some seconds old.
        wait_until(lambda: told("wsthreads_kicks_total") == told("wsthreads_bans_total") == 2, "both have left all")
        wait_until(lambda: told("wsthreads_users") == total - 2)
        wait_until(lambda: told("wsthreads_presence_changes_total") == total + 2, "two have left")
        (killed, _), (_, left) = clients.items()
        os.kill(killed, signal.SIGKILL)
        server.wait_for("Booting worker with pid", times=3)
        wait_until(lambda: told("wsthreads_users") == len(left) - 1, "the dead one's users are gone")
        assert told("wsthreads_kicks_total") == told("wsthreads_bans_total") == 2
        assert told("wsthreads_presence_changes_total") == total + 2
        assert server.end() == 0


def test_workers_that_do_not_add_up_say_so():
    with Workers(None) as server, ExitStack() as stack:
        server.join(stack)
        server.wait_for(r"each of 2 workers reports only its own metrics.*PROMETHEUS_MULTIPROC_DIR")


def test_a_worker_is_met_at_the_next_request_where_no_thread_can_be_started_at_the_first(monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    app, adopted = WebSocketApp(serve_metrics=True), []
    environ = {"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET", "wsthreads.adopt": adopted.append}
    statuses = []

    def ask():
        app(environ, lambda status, headers: statuses.append(status))

    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", no_thread)
        ask()
    for _ in range(2):
        ask()
    assert statuses == ["200 OK"] * 3
    assert adopted == [app, app]
    app.shutdown(0)


def no_thread(thread):
    raise RuntimeError("can't start new thread")


def test_a_directory_that_is_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="missing"):
        WebSocketApp(serve_metrics=True)


# The dashboard for Grafana.


def test_each_counter_of_an_endpoint_is_counted_somewhere():
    package = Path(wsthreads.__file__).parent
    sources = [path.read_text() for path in package.rglob("*.py") if path.name != "families.py"]
    counters = [name for name, _ in _COUNTED]
    assert counters
    assert [name for name in counters if not any(f'"{name}"' in source for source in sources)] == []


def test_the_dashboard_asks_for_metrics_that_there_are():
    dashboard = json.loads(deployment_files("chat", Served(("chat.js",)))["deploy/grafana.json"])
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 15
    app = WebSocketApp(serve_metrics=True, broker=RedisBroker("redis://127.0.0.1:1/"))
    app.add_handler("/ws/chat", Recorder())
    kinds = {family.name: family.kind for family in families(app)}
    asked = {name for query in queries for name in re.findall(r"\bwsthreads_\w+", query)}
    parts = {re.sub("_(bucket|count|sum)$", "", name) for name in asked}
    assert parts == kinds.keys(), "a metric is missing here or there"
    assert {name for name, kind in kinds.items() if kind == "histogram"} == parts - asked
    labels = {label for query in queries for label in re.findall(r"by \(([\w, ]+)\)", query)}
    assert {each for label in labels for each in label.split(", ")} <= {
        "job", "endpoint", "function", "code", "status", "cause", "kind", "setting", "why", "le",
        "version", "python", "gil",
    }  # fmt: skip
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(query.count("(") == query.count(")") for query in queries)


def test_a_refusal_of_a_handlers_own_is_the_handlers():
    assert HandshakeRefused(402, "pay").cause == "handler"
    assert HandshakeRefused(402, "pay", cause="unpaid").cause == "unpaid"


def test_a_new_deployment_has_them_with_those_of_no_earlier_run(tmp_path):
    scaffold(tmp_path / "chat", deploy=True)
    directory = tmp_path / "metrics"
    directory.mkdir()
    (directory / "counter_1.db").write_bytes(b"")
    command = [sys.executable, "-m", "gunicorn", "-c", str(tmp_path / "chat" / "gunicorn.conf.py"), "-b", "127.0.0.1:0"]
    environment = {"METRICS": "1", "PROMETHEUS_MULTIPROC_DIR": str(directory), "WSTHREADS_METRICS_TOKEN": "s3cret"}
    with Program(command, env=environment) as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        found = checked(get(port, Authorization="Bearer s3cret"))
        assert value(found, "wsthreads_sessions", **HERE) == 0
        assert get(port, "/readyz") == "ready\n"
        assert not (directory / "counter_1.db").exists()
        assert server.end() == 0
