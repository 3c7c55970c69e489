"""What the tests of the page about a server share: a server's script, clients in it, and how to find things.

The fixtures are made known to all tests by tests/conftest.py.
"""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest
import websockets.exceptions

from tests.browsing import expect
from tests.programs import connect

HOST = """\
export function onOpen(session) {
  session.setAttribute("user", session.getParameter("user"));
  session.room(session.getParameter("room") || "lobby").join();
}
export function onMessage(session, message) {
  if (message === "throw") return shout(undefined);
  if (message.startsWith("log")) return console[message.slice(4)]("careful", { members: 2 });
  session.rooms().forEach((name) => session.room(name).broadcast(message));
}
const shout = (text) => text.toUpperCase();
"""


@pytest.fixture
def host_script(tmp_path):
    script = tmp_path / "host.js"
    script.write_text(HOST)
    return script


@pytest.fixture
def page_of(window):
    """Open a part of the page about a server; when this returns, it has heard from it."""

    def open_page(server, part="Overview", **options):
        page = window(f"{server.url}/_wsthreads/#/{part.lower()}", **options)
        expect(page.locator("#state-text")).to_have_text("live")
        # With a first sample, it has been told all that was before; what comes from now on is news.
        expect(page.locator("#endpoints td.number").first).to_have_text(re.compile("[0-9]"))
        return page

    return open_page


@pytest.fixture
def guests():
    """Sessions of clients that are no browsers: ``guests(server, "user=ann", "user=bob")``, each with its query."""
    with ExitStack() as stack:
        yield lambda server, *queries, path="/ws/host": [
            stack.enter_context(connect(f"{server.ws_url}{path}?{query}")) for query in queries
        ]


def tab(page, name):
    return page.get_by_role("tab", name=re.compile(f"^{name}"))


def row(page, text):
    """The row of a visible table whose first cell has this text. Case counts: ids of sessions have any letters."""
    exact = re.compile(re.escape(text)) if isinstance(text, str) else text
    return page.locator("tbody tr:visible", has=page.locator("th", has_text=exact))


def ended(client):
    """Whether the server has closed it, which is not waited for."""
    try:
        client.recv(timeout=0.05)
    except TimeoutError:
        return False
    except websockets.exceptions.ConnectionClosed:
        return True
    return False
