"""WebSocket endpoints beside other applications' views, as README.rst embeds them: Django and plain WSGI."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.programs import DEADLINE_S, ROOT, connect, receive
from wsthreads.app import WebSocketApp

#: A project in one file. It configures Django for its whole process, so it is one of its own.
DJANGO = '''
import json, sys, urllib.request
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for this test")
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from wsthreads import WebSocketApp
from wsthreads.serving import Server

def announce(request, text):
    application.endpoint("/ws/chat").room("chat").broadcast(text)
    return HttpResponse("announced")

urlpatterns = [path("announce/<text>", announce)]
application = WebSocketApp(get_wsgi_application())

@application.route("/ws/chat")
class Chat:
    def on_open(self, session):
        session.room("chat").join()
        session.send("welcome")

from tests.programs import connect, receive
with Server(application, port=0) as server, connect(server.ws_url + "/ws/chat") as client:
    assert receive(client) == "welcome"
    with urllib.request.urlopen(server.url + "/announce/hello", timeout=10) as response:
        print(response.read().decode())
    print(receive(client))
'''


def test_a_django_view_broadcasts(tmp_path: Path) -> None:
    project = tmp_path / "project.py"
    project.write_text(DJANGO)
    ran = subprocess.run(
        [sys.executable, str(project)],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
    )
    assert ran.stdout.split() == ["announced", "hello"], ran.stderr


def test_a_plain_wsgi_application_gets_every_other_path(serve: Callable[..., Any]) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    app = WebSocketApp(application)

    @app.route("/ws/echo")
    class Echo:
        def on_message(self, session: Any, message: str) -> None:
            session.send(message)

    server = serve(app)
    with urllib.request.urlopen(server.url + "/ws/elsewhere", timeout=DEADLINE_S) as response:
        assert response.read() == b"/ws/elsewhere"
    with connect(server.ws_url + "/ws/echo") as client:
        client.send("hello")
        assert receive(client) == "hello"
