"""The page about a server, in Chromium: who is there in a room, a user's sessions, kicks and bans."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from tests.browsing import PHONE, button, expect, field, has_no_sideways_scrolling, low_contrasts
from tests.dashboard_windows import ended, row, tab
from tests.programs import receive, run_server, wait_until
from tests.wire import RawClient

CLUB = """\
import json

def on_handshake(request):
    request.user = request.get_parameter("user")

def on_open(session):
    value, room = session.get_parameter("presence"), session.room("garden")
    room.join(presence=json.loads(value)) if value else room.join()

def on_message(session, message):
    session.room("garden").set_presence(json.loads(message))
"""

EVIL = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def club(tmp_path):
    handler = tmp_path / "club.py"
    handler.write_text(CLUB)
    with run_server(handler) as server:
        yield server


@pytest.fixture
def come(club, guests):
    return lambda **query: guests(club, urlencode(query), path="/ws/club")[0]


def presence(**value):
    return json.dumps(value)


def room_view(page):
    return page.get_by_role("complementary", name="The chosen room")


def user_view(page):
    return page.get_by_role("complementary", name="The chosen user")


def person(page, name):
    return page.locator(".persons li", has_text=name)


def test_a_room_tells_who_is_there_since_when_and_on_a_click_their_presence(club, come, page_of):
    come(user="ann", presence=presence(status="away", token="sesame"))
    tab_of_ann = come(user="ann")
    come(user=EVIL, presence=json.dumps(EVIL))
    come(presence=presence(status="guest"))
    page = page_of(club, "Rooms")
    row(page, "garden").click()
    view = room_view(page)
    expect(view.locator(".persons li")).to_have_count(3)
    expect(view).to_contain_text("Who is there: 3")
    expect(person(page, "ann")).to_contain_text("1 session, since ")  # the tab without presence is a member only
    value = person(page, "ann").locator("pre")
    expect(value).to_be_hidden()
    person(page, "ann").locator("summary").click()
    expect(value).to_have_text('{"status": "away", "token": "hidden (6 characters)"}')
    tab_of_ann.send('{"status": "here"}')
    expect(person(page, "ann")).to_contain_text("2 sessions")
    expect(value).to_have_text('{"status": "here"}')
    expect(value).to_be_visible()  # it stays unfolded
    person(page, EVIL).locator("summary").click()
    expect(person(page, EVIL).locator("pre")).to_have_text(json.dumps(EVIL))
    person(page, EVIL).get_by_role("button").click()
    expect(user_view(page).locator("h2")).to_have_text(EVIL)
    assert page.locator("main img").count() == 0
    assert "owned" not in page.title()


def test_a_room_without_presence_has_members_only(club, come, page_of):
    come(user="ann")
    page = page_of(club, "Rooms")
    row(page, "garden").click()
    expect(room_view(page).locator(".members:not(.persons) li")).to_have_count(1)
    expect(room_view(page).locator(".who")).to_be_hidden()


def test_a_user_is_kicked_from_the_page_on_all_devices(club, come, page_of):
    phone, tablet, other = come(user="ann"), come(user="ann"), come(user="bob")
    page = page_of(club, "Sessions")
    row(page, "ann").first.click()
    button(page.locator("#session"), "All sessions of ann").click()
    view = user_view(page)
    expect(page.locator("#session")).to_be_hidden()
    expect(view.locator("li")).to_have_count(2)
    button(view, "Kick user …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Kick the user ann?")
    button(dialog, "Cancel").click()
    button(view, "Kick user …").click()
    field(dialog, "Code (1000 to 1014, 3000 to 4999)").fill("4001")
    field(dialog, "Reason").fill("enough")
    button(dialog, "Kick").click()
    wait_until(lambda: ended(phone) and ended(tablet), "the kick")
    assert (phone.close_code, phone.close_reason) == (4001, "enough")
    expect(page.locator("#toast")).to_have_text("closing 2 sessions with 4001")
    expect(view).to_contain_text("This user has no sessions.")
    expect(row(page, "ann")).to_have_count(0)
    assert not ended(other)
    come(user="ann")
    expect(view.locator("li")).to_have_count(1)
    view.locator("li button").click()
    expect(view).to_be_hidden()
    expect(page.locator("#session h2")).to_have_text("ann")
    tab(page, "Overview").click()
    expect(page.locator("#endpoints td[data-label=Users]")).to_have_text("2")
    expect(page.locator("#endpoints td[data-label=Users]")).to_have_attribute(
        "title", "since the start of the server: 0 changes of presence, 2 kicked sessions, 0 bans"
    )


def test_a_user_is_banned_for_some_seconds_and_the_console_tells(club, come, page_of):
    ann = come(user="ann", presence="1")
    page = page_of(club, "Rooms")
    row(page, "garden").click()
    person(page, "ann").get_by_role("button").click()
    button(user_view(page), "Ban user …").click()
    dialog = page.get_by_role("dialog")
    field(dialog, "Seconds").fill("-1")
    button(dialog, "Ban").click()
    expect(dialog).to_be_visible()  # the field says why
    field(dialog, "Seconds").fill("600")
    page.keyboard.press("Enter")
    wait_until(lambda: ended(ann), "the kick")
    assert ann.close_code == 1008
    with RawClient(club.port, "/ws/club?user=ann") as refused:
        assert refused.status == 403
    tab(page, "Console").click()
    expect(page.locator("#console-lines li", has_text="user ann banned on /ws/club for 600 s")).to_be_visible()
    expect(page.locator("#console-lines li", has_text="user ann kicked on /ws/club")).to_be_visible()


def test_a_room_is_closed_from_the_page(club, come, page_of):
    ann, bob = come(user="ann"), come(user="bob")
    page = page_of(club, "Rooms")
    row(page, "garden").click()
    button(room_view(page), "Close room …").click()
    dialog = page.get_by_role("dialog")
    field(dialog, "Reason").fill("closing time")
    button(dialog, "Close").click()
    wait_until(lambda: ended(ann) and ended(bob), "the close")
    assert (ann.close_code, ann.close_reason) == (1000, "closing time")
    expect(row(page, "garden")).to_have_count(0)


def test_a_message_is_sent_to_a_session_and_to_a_user(club, come, page_of):
    page = page_of(club, "Sessions")
    phone = come(user="ann")
    expect(row(page, "ann")).to_have_count(1)  # so that the other one is surely the newer
    tablet = come(user="ann")
    expect(row(page, "ann")).to_have_count(2)
    row(page, "ann").first.click()
    session = page.locator("#session")
    field(session, "Message to this session").fill("to one")
    button(session, "Send").click()
    expect(page.locator("#toast")).to_have_text("sent")
    button(session, "All sessions of ann").click()
    field(user_view(page), "Message to ann").fill("to all")
    button(user_view(page), "Send").click()
    assert receive(tablet) == "to one"  # the newest is the first of the list
    assert receive(tablet) == receive(phone) == "to all"


def test_a_user_of_one_process_has_no_column_for_workers(club, come, page_of):
    come(user="ann")
    page = page_of(club, "Sessions")
    expect(row(page, "ann").locator(".worker")).to_be_hidden()
    expect(page.locator("#sessions-count")).to_have_text("1 session")


SIZES = {
    "wide": {"viewport": {"width": 1280, "height": 900}},
    "phone": {**PHONE, "viewport": {"width": 390, "height": 844}},
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_who_is_there_can_be_read_everywhere(club, come, page_of, picture, size, scheme):
    come(user="a-name-" * 30, presence=presence(status="x" * 500))
    for user in ("ann", "ann", "bob"):
        come(user=user, presence=presence(status="here", typing=False))
    page = page_of(club, "Rooms", color_scheme=scheme, **SIZES[size])
    row(page, "garden").get_by_role("button").click()
    for summary in page.locator(".persons summary").all()[:2]:
        summary.click()
    expect(person(page, "ann")).to_contain_text("2 sessions")
    look(page, picture, f"who-{size}-{scheme}")
    person(page, "ann").get_by_role("button").click()
    expect(user_view(page).locator("li")).to_have_count(2)
    look(page, picture, f"user-{size}-{scheme}")
    button(user_view(page), "Ban user …").click()
    look(page, picture, f"ban-{size}-{scheme}")
    page.keyboard.press("Escape")
    user_view(page).locator("li button").first.click()
    expect(page.locator("#session")).to_contain_text("All sessions of ann")
    look(page, picture, f"session-{size}-{scheme}")


def look(page, picture, name):
    picture(page, name)
    assert has_no_sideways_scrolling(page), name
    assert low_contrasts(page) == [], name
