"""The page about a server, in Chromium: what rooms hold, and who owns them."""

from __future__ import annotations

import re

import pytest

from tests.browsing import button, expect
from tests.dashboard.test_who_page import SIZES, look
from tests.dashboard_windows import row
from tests.programs import receive, run_server

TABLE = """\
tick_rate = 20

def on_open(session):
    room = session.room("table")
    room.join(history=10)
    room.set_attribute("score", {"ann": 3, "token": "sesame"})
    session.send("hi")

def on_message(session, message):
    if message.startswith("post"):
        session.room("table").post(message, wait=False)
    else:
        session.room("table").broadcast(message)

def on_post(room, value, sender):
    room.broadcast(value)

def on_tick(room, dt):
    room.set_attribute("ticked", True)
"""

EVIL = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def table(tmp_path):
    handler = tmp_path / "table.py"
    handler.write_text(TABLE)
    with run_server(handler, "--history-messages", "100") as server:
        yield server


@pytest.fixture
def come(table, guests):
    def connected():
        [client] = guests(table, "", path="/ws/table")
        assert receive(client) == "hi"
        return client

    return connected


def room_view(page):
    return page.get_by_role("complementary", name="The chosen room")


def part(page, title):
    return room_view(page).locator("section", has=page.get_by_role("heading", name=title))


def test_a_room_shows_its_history_and_a_message_on_a_click(table, come, page_of):
    ann = come()
    for text in ("hello", EVIL, "x" * 3000):
        ann.send(text)
        assert receive(ann) == text
    page = page_of(table, "Rooms")
    expect(row(page, "table").locator("[data-label=History]")).to_have_text("3")
    row(page, "table").click()
    history = part(page, "History")
    expect(history.locator("h3")).to_have_text(re.compile("History: 3 messages, 3 kB|History: 3 messages, 3.1 kB"))
    messages = history.locator("li")
    expect(messages.nth(2).locator("summary")).to_have_text(re.compile(r"\d\d:\d\d:\d\d, 5 B"))
    assert "hello" not in history.inner_html()
    messages.nth(2).locator("summary").click()
    expect(messages.nth(2).locator("pre")).to_have_text("hello")
    messages.nth(1).locator("summary").click()
    expect(messages.nth(1).locator("pre")).to_have_text(EVIL)
    assert page.locator("main img").count() == 0
    ann.send("post news")
    expect(messages).to_have_count(4)
    expect(messages.nth(3).locator("pre")).to_have_text("hello")  # it stays unfolded
    expect(messages.nth(3).locator("pre")).to_be_visible()
    assert "owned" not in page.title()


def test_a_room_shows_its_owner_and_attributes(table, come, page_of):
    come()
    page = page_of(table, "Rooms")
    expect(row(page, "table").locator("[data-label=Owner]")).to_have_text(re.compile("[0-9]+"))
    expect(row(page, "table").locator("[data-label='Tick late by']")).to_have_text(re.compile("s$"))
    row(page, "table").click()
    view = room_view(page)
    expect(view.locator("dl")).to_contain_text("Ownershipnumber 1")
    expect(view.locator("dl")).to_contain_text("Posts waiting0")
    expect(view.locator("dl")).to_contain_text("Last tick late by")
    attributes = part(page, "Attributes")
    expect(attributes.locator("li")).to_have_count(2)
    attributes.locator("summary", has_text="score").click()
    expect(attributes.locator("li", has_text="score").locator("pre")).to_have_text(
        '{"ann": 3, "token": "hidden (6 characters)"}'
    )


def test_a_room_that_holds_nothing_shows_nothing(tmp_path, page_of, guests):
    handler = tmp_path / "plain.py"
    handler.write_text('def on_open(session):\n    session.room("lobby").join()\n    session.send("hi")\n')
    with run_server(handler) as server:
        [client] = guests(server, "", path="/ws/plain")
        assert receive(client) == "hi"
        page = page_of(server, "Rooms")
        expect(row(page, "lobby").locator("[data-label=History]")).to_be_hidden()
        expect(row(page, "lobby").locator("[data-label=Owner]")).to_be_hidden()
        row(page, "lobby").click()
        expect(room_view(page).locator(".members:not(.persons) li")).to_have_count(1)
        for title in ("History", "Attributes"):
            expect(part(page, title)).to_be_hidden()
        expect(room_view(page).locator("dl")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_what_a_room_holds_can_be_read_everywhere(table, come, page_of, picture, size, scheme):
    ann, bob = come(), come()
    for n in range(60):
        ann.send(f"{n} " + "word " * n * n)
        receive(ann)
        receive(bob)  # with more than it reads ahead, it would not read the server's close frame
    page = page_of(table, "Rooms", color_scheme=scheme, **SIZES[size])
    look(page, picture, f"rooms-{size}-{scheme}")
    row(page, "table").get_by_role("button").click()
    expect(part(page, "History").locator("li")).to_have_count(50)
    for summary in part(page, "History").locator("summary").all()[:2]:
        summary.click()
    part(page, "Attributes").locator("summary").first.click()
    expect(part(page, "History").locator("pre").nth(1)).to_contain_text("word")
    look(page, picture, f"room-holds-{size}-{scheme}")
    assert button(room_view(page), "Close room …").is_visible()
