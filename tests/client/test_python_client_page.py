"""docs/how-to/python-client.rst: its examples run as the page has them, against a server here."""

from __future__ import annotations

import pytest

import wsthreads
from tests.pages import blocks, text_of
from tests.programs import DEADLINE_S, own_threads, wait_until
from wsthreads.testing import live_server

FIRST, REQUESTS, ON_OPEN, ADDRESS = blocks("docs/how-to/python-client", "python")
URL = "ws://127.0.0.1:5000/ws/chat"


class Chat:
    def __init__(self):
        self.heard, self.answers = [], []

    def on_open(self, session):
        session.attributes["token"] = session.get_parameter("token")
        self.opened = session

    def on_message(self, session, message):
        self.heard.append(message)
        if message == "hello":
            session.send("hello to you")
            session.send("one")
            session.close(1000)

    def on_request(self, session, message):
        self.answers.append(session.request("status", timeout=DEADLINE_S))
        return f"{message}: 1"


@pytest.fixture
def chat():
    return Chat()


@pytest.fixture
def run(chat):
    """Runs an example against a server of its own; returns its names."""
    with live_server(chat, "/ws/chat", resume_s=60) as server:

        def execute(source, **names):
            url = server.ws_url + "/ws/chat"
            names = {"RequestError": wsthreads.RequestError, "Client": wsthreads.Client, **names}
            exec(source.replace(URL, url).replace("wss://example.org/ws/chat", url), names)
            return names

        yield execute


def test_a_client_sends_receives_and_iterates(run, capsys):
    run(FIRST)
    assert capsys.readouterr().out == "hello to you\none\n"


def test_requests_go_both_ways(run, chat):
    names = run(REQUESTS)
    assert names["members"] == "members: 1"
    assert chat.answers == ["ready"]
    with pytest.raises(wsthreads.RequestError, match="unknown request"):
        names["answer"]("x")


def test_what_on_open_sends_goes_first(run, chat):
    with run(ON_OPEN + 'client.send("next")')["client"]:
        wait_until(lambda: chat.heard == ["login", "next"])


def test_each_connection_has_a_fresh_token(run, chat):
    tokens = iter(["one", "two"])
    with run(ADDRESS, fetch_token=lambda: next(tokens))["client"] as client:
        client.send("x")
        wait_until(lambda: chat.heard == ["x"])
        assert chat.opened.get_parameter("token") == "one"


def test_a_client_without_a_server_gives_up_as_the_page_says(run):
    assert "``client.closed``" in text_of("docs/how-to/python-client")
    client = wsthreads.Client("ws://127.0.0.1:9/ws/chat", max_attempts=1, min_delay_s=0.01)
    with pytest.raises(wsthreads.SessionClosed):
        client.receive(timeout=DEADLINE_S)
    assert client.closed[0] == 1006
    client.close()
    assert not own_threads("wsthreads-client")
