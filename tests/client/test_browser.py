"""The chat example's page in a real browser."""

from __future__ import annotations

from tests.browsing import PHONE, expect, field, has_no_sideways_scrolling
from tests.programs import EXAMPLES, run_server

CHAT = [EXAMPLES / "chat.js", EXAMPLES / "rooms.js", "--static", EXAMPLES / "public", "--serve-client"]


def join(page, user, room=None):
    field(page, "Your name").fill(user)
    if room is not None:
        field(page, "Room").fill(room)
    page.get_by_role("button", name="Join", exact=True).click()
    expect(page.get_by_role("log")).to_contain_text(f"You are in, as {user}.")


def say(page, text):
    field(page, "Message").fill(text)
    field(page, "Message").press("Enter")


def test_two_windows_chat_and_see_each_other_come_and_go(window, picture):
    with run_server(*CHAT) as server:
        alice, bob = window(server.url), window(server.url)
        join(alice, "alice")
        join(bob, "bob")
        expect(alice.get_by_role("log")).to_contain_text("bob has come in.")
        say(alice, "Hello Bob <b>& all</b> 🎉")
        expect(bob.locator(".message")).to_have_count(1)
        expect(bob.locator(".message .from")).to_have_text("alice")
        expect(bob.locator(".message .text")).to_have_text("Hello Bob <b>& all</b> 🎉")
        expect(alice.locator(".own .text")).to_have_text("Hello Bob <b>& all</b> 🎉")
        say(bob, "Hello Alice")
        say(bob, "How are you?")
        expect(alice.locator(".message")).to_have_count(3)
        picture(alice, "chat-wide-light")
        bob.get_by_role("button", name="Leave").click()
        expect(alice.get_by_role("log")).to_contain_text("bob has left.")
        expect(bob.get_by_role("button", name="Join", exact=True)).to_be_visible()
        picture(bob, "entrance-wide-light")


def test_a_window_that_is_closed_has_left(window):
    with run_server(*CHAT) as server:
        alice, bob = window(server.url), window(server.url)
        join(alice, "alice")
        join(bob, "bob")
        bob.close()
        expect(alice.get_by_role("log")).to_contain_text("bob has left.")


def test_rooms_are_apart_and_count_their_people(window):
    with run_server(*CHAT) as server:
        pages = {name: window(server.url) for name in ("ann", "bob", "eve")}
        for name, room in (("ann", "the garden"), ("eve", "cellar"), ("bob", "the garden")):
            join(pages[name], name, room)
        expect(pages["ann"].locator("#people")).to_have_text("as ann, 2 here")
        expect(pages["eve"].locator("#people")).to_have_text("as eve, 1 here")
        say(pages["ann"], "for the garden")
        expect(pages["bob"].get_by_role("log")).to_contain_text("for the garden")
        expect(pages["eve"].get_by_role("log")).not_to_contain_text("for the garden")
        pages["bob"].get_by_role("button", name="Leave").click()
        expect(pages["ann"].locator("#people")).to_have_text("as ann, 1 here")
        pages["bob"].get_by_role("button", name="the garden").click()  # a room that the browser remembers
        expect(pages["ann"].locator("#people")).to_have_text("as ann, 2 here")


def test_a_link_leads_into_its_room_and_a_reload_stays_there(window):
    with run_server(*CHAT) as server:
        page = window(f"{server.url}/?room=garden")
        join(page, "ann")
        expect(page.locator("#title")).to_have_text("# garden")
        page.reload()
        expect(page.get_by_role("log")).to_contain_text("You are in, as ann.")
        expect(page.locator("#title")).to_have_text("# garden")


def test_with_chat_js_alone_the_page_offers_its_one_room(window):
    with run_server(EXAMPLES / "chat.js", "--static", EXAMPLES / "public", "--serve-client") as server:
        page = window(f"{server.url}/?room=garden")
        expect(page.locator("#rooms-hint")).to_contain_text("This server has one room")
        expect(field(page, "Room")).to_have_value("chat")
        join(page, "ann")


def test_the_page_comes_back_by_itself_when_the_server_does(window, picture):
    with run_server(*CHAT) as server:
        alice, bob = window(server.url), window(server.url, color_scheme="dark")
        join(alice, "alice")
        join(bob, "bob")
        server.process.kill()  # without a close frame
        expect(alice.get_by_role("log")).to_contain_text("The connection was lost.")
        expect(alice.locator("#status")).to_contain_text("Not connected")
        expect(alice.get_by_role("button", name="Send")).to_be_disabled()
        field(alice, "Message").fill("typed meanwhile")
        field(alice, "Message").press("Enter")
        expect(field(alice, "Message")).to_have_value("typed meanwhile")
        picture(alice, "lost-wide-light")
        picture(bob, "lost-wide-dark")
    with run_server(*CHAT, port=server.port):
        for page in (alice, bob):
            expect(page.get_by_role("log")).to_contain_text("You are back.")
            expect(page.locator("#status")).to_be_hidden()
        field(alice, "Message").press("Enter")
        expect(bob.get_by_role("log")).to_contain_text("typed meanwhile")


def test_it_works_on_a_phone(window, picture):
    with run_server(*CHAT) as server:
        phone = window(server.url, **PHONE)
        dark = window(server.url, color_scheme="dark", **PHONE)
        picture(phone, "entrance-narrow-light")
        join(phone, "ann", "garden")
        join(dark, "bob-with-a-very-long-name-that-goes-on", "garden")
        for number in range(30):
            say(phone, f"line {number}")
        say(dark, "x" * 300)
        say(dark, "and a link that is long: https://example.org/" + "path/" * 30)
        expect(phone.locator(".message")).to_have_count(32)
        for page in (phone, dark):
            assert has_no_sideways_scrolling(page)
            expect(field(page, "Message")).to_be_in_viewport(ratio=1)
            expect(page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
            expect(page.locator(".message").last).to_be_in_viewport()
        picture(phone, "chat-narrow-light")
        picture(dark, "chat-narrow-dark")
        dark.get_by_role("button", name="Leave").tap()
        picture(dark, "entrance-narrow-dark")


def test_the_page_works_from_the_keyboard_alone(window):
    with run_server(*CHAT) as server:
        page = window(server.url)
        expect(field(page, "Your name")).to_be_focused()
        page.keyboard.type("ann")
        page.keyboard.press("Enter")
        expect(field(page, "Message")).to_be_focused()
        expect(page.get_by_text("You are in, as ann.")).to_be_visible()  # before that, Enter keeps what was typed
        page.keyboard.type("hello")
        page.keyboard.press("Enter")
        expect(page.locator(".own .text")).to_have_text("hello")
        expect(field(page, "Message")).to_be_focused()
