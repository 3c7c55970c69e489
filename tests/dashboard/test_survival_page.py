"""The page about a server, in Chromium: sessions that wait for their clients, resumes, and why there was none."""

import pytest

from tests.browsing import button, expect
from tests.dashboard.test_who_page import SIZES, look
from tests.dashboard_windows import row
from tests.programs import run_server
from tests.speakers import Speaker

CHAT = """\
def on_handshake(request):
    request.user = request.get_parameter("user")

def on_message(session, message):
    session.send(message)
"""


@pytest.fixture
def server(tmp_path):
    handler = tmp_path / "chat.py"
    handler.write_text(CHAT)
    with run_server(handler, "--resume-s", "60") as server:
        yield server


def come(server, user):
    client = Speaker(server.port, f"/ws/chat?user={user}").begin()
    client.send("hello")
    assert client.next() == "hello"
    return client


def test_a_session_that_waits_for_its_client_is_seen_and_goes_on(server, page_of):
    page = page_of(server, "Sessions")
    with come(server, "ann") as ann:
        ann.lose()
        expect(row(page, "ann").locator("[data-label='Open for']")).to_have_text("suspended")
        row(page, "ann").get_by_role("button").click()
        view = page.locator("#session")
        expect(view).to_contain_text("This session is suspended: it has lost its connection, and waits for its client.")
        expect(view.locator("dt:text-is('Not acknowledged') + dd")).to_have_text("7 B")
        view.get_by_role("textbox").fill("while you were away")
        button(view, "Send").click()
        expect(page.locator("#toast")).to_have_text("sent")
        assert ann.come_back().resumed
        assert ann.next() == "while you were away"
        expect(row(page, "ann").locator("[data-label='Open for']")).not_to_have_text("suspended")
        expect(view).not_to_contain_text("This session is suspended")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_suspended_sessions_and_resumes_can_be_read_everywhere(server, page_of, picture, size, scheme):
    with come(server, "ann") as ann, come(server, "bob") as bob, come(server, "eve"):
        ann.lose()
        bob.lose()
        assert bob.come_back().resumed
        with Speaker(server.port, "/ws/chat?user=mallory") as mallory:
            assert mallory.come_back(ann.token, 0).why == "user"
            page = page_of(server, "Overview", color_scheme=scheme, **SIZES[size])
            survival = page.locator("#endpoints .survival")
            expect(survival).to_have_text("1 suspended, 14 B not acknowledged, 1 resumed, not resumed: user 1")
            look(page, picture, f"survival-overview-{size}-{scheme}")
            page.get_by_role("tab", name="Sessions").click()
            expect(row(page, "ann").locator("[data-label='Open for']")).to_have_text("suspended")
            look(page, picture, f"survival-sessions-{size}-{scheme}")
            row(page, "ann").get_by_role("button").click()
            expect(page.locator("#session")).to_contain_text("This session is suspended")
            look(page, picture, f"survival-session-{size}-{scheme}")


def test_a_server_whose_sessions_end_with_their_connections_says_nothing_of_it(tmp_path, page_of, guests):
    handler = tmp_path / "chat.py"
    handler.write_text(CHAT)
    with run_server(handler) as server:
        guests(server, "user=ann", path="/ws/chat")
        page = page_of(server)
        expect(page.locator("#endpoints td.number").first).to_have_text("1")
        expect(page.locator("#endpoints .survival")).to_have_text("")
        page.get_by_role("tab", name="Sessions").click()
        row(page, "ann").get_by_role("button").click()
        expect(page.locator("#session dt:text-is('Not acknowledged') + dd")).to_have_text("not kept")
