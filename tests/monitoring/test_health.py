"""``/healthz`` and ``/readyz``."""

import pytest

from tests.programs import Browser, run_server
from tests.wire import RawClient, Recorder, endpoint
from wsthreads import Config, WebSocketApp, create_app


def answers(app):
    browser = Browser(app)
    return [(answer.status_code, answer.text) for answer in (browser.get("/healthz"), browser.get("/readyz"))]


def answers_at_once(app):
    try:
        return answers(app)
    finally:
        app.shutdown(0)


def test_a_process_is_well_and_ready_until_it_shuts_down():
    app = WebSocketApp(serve_health=True)
    app.add_handler("/ws/chat", Recorder())
    assert answers(app) == [(200, "ok\n"), (200, "ready\n")]
    assert Browser(app).get("/readyz").headers["Cache-Control"] == "no-store"
    app.shutdown(0)
    assert answers(app) == [(200, "ok\n"), (503, "not ready: shutting down\n")]


def test_a_full_server_is_ready():
    """Its other requests would go nowhere, else; and a client that tries is told when to come back."""
    with endpoint(Recorder(), serve_health=True, max_sessions=1) as (app, port), RawClient(port):
        with RawClient(port) as late:
            assert late.status == 503
        assert answers(app)[1] == (200, "ready\n")


def test_a_script_that_has_died_is_started_and_one_that_cannot_be_is_told_of(tmp_path, caplog):
    file = tmp_path / "chat.js"
    file.write_text("export function onMessage(session, message) {}")
    app = create_app(file)
    try:
        isolate = app.endpoints[0].handler._isolate
        isolate.stop(1)
        assert answers(app)[1] == (200, "ready\n")
        assert app.endpoints[0].handler._isolate is not isolate
        app.endpoints[0].handler._isolate.stop(1)
        file.unlink()
        assert answers(app)[1] == (503, "not ready: the handler of /ws/chat is not running\n")
        assert "no such file" in caplog.text
    finally:
        app.shutdown(0)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_only_reading_makes_sense(path):
    app = WebSocketApp(serve_health=True)
    assert Browser(app).head(path).status_code == 200
    assert Browser(app).delete(path).status_code == 405
    app.shutdown(0)


def test_a_site_keeps_its_own_and_who_has_none_gets_ours(tmp_path):
    def site(environ, start_response):
        start_response("200 OK", [])
        return [b"the site's own"]

    file = tmp_path / "probed.py"
    file.write_text("def on_message(session, message): pass\n")
    own = [(200, "the site's own")] * 2
    assert answers_at_once(WebSocketApp(site)) == answers_at_once(create_app(file, wsgi_app=site)) == own
    assert answers_at_once(create_app(file, wsgi_app=site, serve_health=True)) == [(200, "ok\n"), (200, "ready\n")]
    for settings in ({}, {"static": tmp_path}):
        assert answers_at_once(create_app(file, **settings)) == [(200, "ok\n"), (200, "ready\n")]
    assert answers_at_once(create_app(file, config=Config())) == [(200, "ok\n"), (200, "ready\n")]
    for settings in ({"serve_health": False}, {"config": Config(serve_health=False)}):
        assert [status for status, _ in answers_at_once(create_app(file, **settings))] == [404, 404]
    assert [status for status, _ in answers_at_once(WebSocketApp())] == [404, 404]


def test_run_answers(tmp_path):
    from urllib.request import urlopen

    file = tmp_path / "probed.py"
    file.write_text("def on_message(session, message): pass\n")
    with run_server(file) as server, urlopen(server.url + "/readyz") as answer:
        assert answer.read() == b"ready\n"
