"""What is no `Exception` ends the call that raised it, and no thread, worker or session: under each of the servers."""

import asyncio
import sys
from contextlib import contextmanager
from http.client import IncompleteRead
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.escapes_app import ERRORS
from tests.ports import free_port
from tests.programs import PROGRAM_S, ROOT, Program, connect, receive, run_server, wait_until
from wsthreads import WebSocketApp
from wsthreads.servers.containment import ApplicationFailed

GUNICORN = ["-m", "gunicorn", "--threads", "20", "-w", "1", "-b", "127.0.0.1:{port}", "--graceful-timeout", "5", "-k"]

#: What serves `tests.escapes_app`. Our worker class serves it with something around it.
SERVERS = {
    "gthread": [*GUNICORN, "gthread", "tests.escapes_app:app"],
    "our worker": [*GUNICORN, "wsthreads.gunicorn.ThreadWorker", "tests.escapes_app:around"],
    "Werkzeug": ["-m", "tests.escapes_app", "{port}"],
}


@contextmanager
def served(kind, folder):
    """The program; its `markers` are what the handlers' calls have left."""
    folder.joinpath("markers").touch()
    environment = {"MARKERS": str(folder / "markers")}
    if kind == "wsthreads run":
        file = folder / "failing.py"
        hooks = ("on_handshake", "on_open", "on_message", "on_close", "on_error")
        text = (ROOT / "tests" / "escapes_app.py").read_text()
        file.write_text("\n".join([text, "it = Failing()", *(f"{hook} = it.{hook}" for hook in hooks)]))
        with run_server(file, "--path", "/ws", env=environment) as program:
            program.markers = folder / "markers"
            yield program
        return
    port = free_port()
    with Program([sys.executable, *(part.format(port=port) for part in SERVERS[kind])], env=environment) as program:
        program.url, program.ws_url = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
        program.markers = folder / "markers"
        wait_until(lambda: status(program.url) == 200, "the server to answer", PROGRAM_S)
        yield program


def status(url):
    """Of a request that is answered to its end; 0 if it is not."""
    try:
        with urlopen(url, timeout=PROGRAM_S) as answer:
            answer.read()
            return answer.status
    except HTTPError as error:
        return error.code
    except (OSError, IncompleteRead):
        return 0


@pytest.mark.parametrize("kind", ["wsthreads run", *SERVERS])
def test_it_ends_the_call_of_a_handler_that_raised_it_and_nobody_s_session(kind, tmp_path):
    with served(kind, tmp_path) as server, connect(url := f"{server.ws_url}/ws") as bystander:
        for error in ERRORS:
            with pytest.raises(InvalidStatus, match="500"):
                connect(f"{url}?at=on_handshake&error={error}").close()
            with connect(f"{url}?at=on_open&error={error}") as client, pytest.raises(ConnectionClosed) as caught:
                receive(client)
            assert caught.value.rcvd.code == 1011
            for at in ("on_message", "on_error", "on_close"):
                with connect(f"{url}?at={at}&error={error}") as client:
                    client.send("fail")
                    client.send("last")
                    assert receive(client) == ("last" if at != "on_close" else "fail")
            bystander.send("still here")
            assert receive(bystander) == "still here"
        expected = [f"error {error} {at}" for error in ERRORS for at in ("on_open", "on_message", "on_close")]
        expected += [*["error Own on_error"] * len(ERRORS), *["closed"] * (4 * len(ERRORS))]
        wait_until(lambda: sorted(server.markers.read_text().splitlines()) == sorted(expected), expected)
        server.wait_for(r"on_handshake failed for 127\.0\.0\.1", times=len(ERRORS))
        for hook in ("on_open", "on_message", "on_error", "on_close"):
            server.wait_for(rf"{hook} failed in session ", times=len(ERRORS))
        assert server.log.count("Booting worker") <= 1


@pytest.mark.parametrize("kind", SERVERS)
def test_it_ends_the_request_of_a_view_that_raised_it_and_nobody_s_session(kind, tmp_path):
    with served(kind, tmp_path) as server, connect(f"{server.ws_url}/ws") as bystander:
        for error in ERRORS:
            for at in ("before_request", "view", "around")[: 3 if kind == "our worker" else 2]:
                assert status(f"{server.url}/?at={at}&error={error}") == 500, (at, error)
            assert status(f"{server.url}/?at=body&error={error}") == 0
            status(f"{server.url}/?at=close&error={error}")  # it has been answered by then
            server.wait_for(f"ApplicationFailed: the application raised {error},")
        bystander.send("still here")
        assert receive(bystander) == "still here"
        assert status(server.url) == 200
        assert server.log.count("Booting worker") <= 1


class FileWrapper:
    """Such as a server gives to an application, for it to hand back."""


@pytest.mark.parametrize("response", [[b"a"], (b"a",), FileWrapper()])
def test_a_response_that_cannot_fail_or_is_the_server_s_own_is_handed_on_as_it_is(response):
    app = WebSocketApp(lambda environ, start_response: response)
    assert app({"PATH_INFO": "/", "wsgi.file_wrapper": FileWrapper}, print) is response


@pytest.mark.parametrize("error", [ValueError, StopIteration])
def test_an_exception_is_handed_on_as_it_is(error):
    def fail(environ, start_response):
        raise error

    with pytest.raises(error):
        WebSocketApp(fail)({"PATH_INFO": "/"}, print)


def test_an_application_s_error_is_the_cause_of_ours():
    def fail(environ, start_response):
        raise asyncio.CancelledError("why")

    with pytest.raises(ApplicationFailed, match="CancelledError") as caught:
        WebSocketApp(fail)({"PATH_INFO": "/"}, print)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
