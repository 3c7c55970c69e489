"""What ``wsthreads.django`` brings: a system check, and a live server for tests."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.programs import PROGRAM_S, ROOT, Program, wait_until
from tests.wire import RawClient

SITE = """
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from wsthreads import WebSocketApp

settings.configure(
    DEBUG=True, SECRET_KEY="for this test", ROOT_URLCONF="site_", WSGI_APPLICATION="site_.application",
    INSTALLED_APPS=["django.contrib.contenttypes", "wsthreads.django"], STATIC_URL="static/", MEDIA_URL="media/",
    MEDIA_ROOT="media", DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
application = WebSocketApp(get_wsgi_application())

@application.route("/ws/count")
class Count:
    def on_open(self, session):
        from django.contrib.contenttypes.models import ContentType
        session.send(str(ContentType.objects.filter(app_label="test").count()))

urlpatterns = [
    path("page", lambda request: HttpResponse("a page")),
    path("cookies", lambda request: HttpResponse(request.META["HTTP_COOKIE"])),
]
"""

TESTS = """
from http.client import HTTPConnection
from urllib.request import urlopen
import pathlib
from django.contrib.contenttypes.models import ContentType
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
import site_
from wsthreads.django.test import LiveServerTestCase, LiveServerThread

left = []

class Live(LiveServerTestCase):
    def test_pages_files_and_websockets_that_share_the_database(self):
        ContentType.objects.create(app_label="test", model="one")
        assert urlopen(self.live_server_url + "/page").read() == b"a page"
        pathlib.Path("media").mkdir()
        pathlib.Path("media/file.txt").write_text("a file")
        assert urlopen(self.live_server_url + "/media/file.txt").read() == b"a file"
        client = connect("ws" + self.live_server_url[4:] + "/ws/count", proxy=None)
        assert client.recv(timeout=10) == "1"
        left.append(client)

    def test_cookies_of_several_lines_are_joined_by_semicolons(self):
        page = HTTPConnection(self.live_server_url.removeprefix("http://"), timeout=10)
        page.putrequest("GET", "/cookies")
        for cookie in ("a=1", "b=2"):
            page.putheader("Cookie", cookie)
        page.endheaders()
        assert page.getresponse().read() == b"a=1; b=2"
        page.close()

class Static(StaticLiveServerTestCase):  # Django's, after the other, which has ended
    server_thread_class = LiveServerThread

    def test_the_session_that_was_left_has_been_closed_and_the_application_still_serves(self):
        try:
            left[0].recv(timeout=10)
        except ConnectionClosed as end:
            assert (end.rcvd.code, end.rcvd.reason) == (1001, "the test is over")
        left[0].close()
        with connect("ws" + self.live_server_url[4:] + "/ws/count", proxy=None) as client:
            assert client.recv(timeout=10) == "0"
"""

RUN = "import site_; site_.execute_from_command_line()"


def manage(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """``manage.py``, for `SITE` with some of its text replaced by another."""
    text = SITE
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    (folder / "site_.py").write_text(text)
    (folder / "manage.py").write_text(RUN)
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8", timeout=PROGRAM_S,
    )


def test_the_live_server_of_tests_serves_websockets(tmp_path):
    (tmp_path / "test_site.py").write_text(TESTS)
    done = manage(tmp_path, "test", "--noinput")
    assert done.returncode == 0, done.stderr
    assert "Ran 3 tests" in done.stderr


PROJECT_WSGI = """
import os
from django.core.wsgi import get_wsgi_application
from wsthreads import WebSocketApp

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")
application = WebSocketApp(get_wsgi_application())

@application.route("/ws/echo")
class Echo:
    def on_message(self, session, message):
        session.send(message)
"""

PROJECT_TESTS = """
from urllib.request import urlopen
from websockets.sync.client import connect
from wsthreads.django.test import LiveServerTestCase

class Live(LiveServerTestCase):
    def test_pages_and_websockets(self):
        assert b"Django administration" in urlopen(self.live_server_url + "/admin/").read()
        with connect("ws" + self.live_server_url[4:] + "/ws/echo", proxy=None) as client:
            client.send("hi")
            assert client.recv(timeout=10) == "hi"
"""


@pytest.mark.parametrize("media_url", ["", "/", "/media/"])
def test_the_live_server_serves_a_project_of_startproject(tmp_path, media_url):
    def run(*command: str) -> str:
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
                              capture_output=True, encoding="utf-8", timeout=PROGRAM_S)
        assert done.returncode == 0, done.stderr
        return done.stderr

    run("-m", "django", "startproject", "site_", ".")
    (tmp_path / "site_/wsgi.py").write_text(PROJECT_WSGI)
    (tmp_path / "test_live.py").write_text(PROJECT_TESTS)
    if media_url:
        with (tmp_path / "site_/settings.py").open("a") as settings:
            settings.write(f"\nMEDIA_URL = {media_url!r}\n")
    assert "Ran 1 test" in run("manage.py", "test", "--noinput")


def test_check_is_silent_where_all_is_well(tmp_path):
    assert "no issues" in manage(tmp_path, "check").stdout


@pytest.mark.parametrize("apps", ['"django.contrib.staticfiles", "wsthreads.django"', '"mine", "wsthreads.django"'])
def test_check_tells_of_a_runserver_that_is_another_s(tmp_path, apps):
    commands = tmp_path / "mine/management/commands"
    commands.mkdir(parents=True)
    (tmp_path / "mine/__init__.py").touch()
    (commands / "runserver.py").write_text("from django.core.management.commands.runserver import Command")
    done = manage(tmp_path, "check", apps=('"wsthreads.django"', apps))
    owner = apps.split('"')[1]
    assert f"(wsthreads.W001) manage.py runserver is the command of {owner}" in done.stderr
    assert f'put "wsthreads.django" before "{owner}"' in done.stderr


def test_the_refusal_under_another_s_runserver_names_the_order(tmp_path):
    apps = '"django.contrib.staticfiles", "wsthreads.django"'
    (tmp_path / "site_.py").write_text(SITE.replace('"wsthreads.django"', apps))
    port = free_port()
    command = [sys.executable, "-c", RUN, "runserver", "--noreload", "--skip-checks", str(port)]
    with Program(command, cwd=tmp_path, env={"PYTHONPATH": f"{ROOT}:{tmp_path}"}) as server:
        server.wait_for("Quit the server with|Starting development server")

        def listens():
            with suppress(ConnectionRefusedError):
                return RawClient(port, "/ws/count")

        with wait_until(listens, "the server to listen", PROGRAM_S) as client:
            assert client.status == 501
            assert 'put "wsthreads.django" first in INSTALLED_APPS' in client.body()
        server.wait_for('refused: 501 .*put "wsthreads.django" first')


def test_check_tells_of_a_missing_application(tmp_path):
    done = manage(tmp_path, "check", setting=(' WSGI_APPLICATION="site_.application",', ""))
    assert "(wsthreads.W002) WSGI_APPLICATION is not set" in done.stderr
