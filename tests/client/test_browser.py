"""The chat example's page in a real browser."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from urllib.parse import urlencode

import pytest

from tests.browsing import PHONE, button, expect, field, has_no_sideways_scrolling, low_contrasts
from tests.programs import EXAMPLES, connect, run_server
from tests.redis_server import RedisServer

#: A phone that is 390 px wide.
PHONE_390 = {**PHONE, "viewport": {"width": 390, "height": 740}}

CHAT = [
    *(EXAMPLES / "chat.js", EXAMPLES / "rooms.js", "--history-messages", "1000"),
    *("--static", EXAMPLES / "public", "--serve-client"),
]


def join(page, user, room=None):
    field(page, "Your name").fill(user)
    if room is not None:
        field(page, "Room").fill(room)
    page.get_by_role("button", name="Join", exact=True).click()
    expect(page.get_by_role("log")).to_contain_text(f"You are in, as {user}.")


def say(page, text):
    field(page, "Message").fill(text)
    field(page, "Message").press("Enter")


def people(page):
    """The list of who is there."""
    return page.get_by_role("region", name="Here").get_by_role("listitem")


def notes(page):
    return page.locator(".note")


def test_two_windows_chat_by_chat_js_and_see_each_other_come_and_go(window, picture):
    with run_server(*CHAT) as server:
        alice, bob = window(server.url), window(server.url)
        join(alice, "alice", "chat")
        join(bob, "bob", "chat")
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


def test_a_window_that_is_closed_has_left_chat_js(window):
    with run_server(*CHAT) as server:
        alice, bob = window(server.url), window(server.url)
        join(alice, "alice", "chat")
        join(bob, "bob", "chat")
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
        field(page, "Your name").fill("ann")
        button(page, "Join").click()
        expect(page.locator("#rooms-hint")).to_contain_text("This server has one room")
        expect(field(page, "Room")).to_have_value("chat")
        join(page, "ann")


def test_the_page_writes_nothing_to_the_console_of_the_browser(window):
    with run_server(*CHAT) as server:
        page, console = window(), []
        page.on("console", lambda message: console.append(message.text))
        page.goto(server.url)
        join(page, "ann", "garden")
        say(page, "hello")
        expect(texts(page)).to_have_text(["hello"])
        page.reload()
        expect(page.get_by_role("log")).to_contain_text("You are in, as ann.")
        assert console == []


@pytest.mark.parametrize("room", ["chat", "garden"])
def test_the_page_comes_back_by_itself_when_the_server_does(window, picture, room):
    with run_server(*CHAT) as server:
        alice, bob = window(server.url), window(server.url, color_scheme="dark")
        join(alice, "alice", room)
        join(bob, "bob", room)
        server.process.kill()  # without a close frame
        expect(alice.get_by_role("log")).to_contain_text("The connection was lost.")
        expect(alice.locator("#status")).to_contain_text("Not connected")
        expect(alice.get_by_role("button", name="Send")).to_be_disabled()
        field(alice, "Message").fill("typed meanwhile")
        field(alice, "Message").press("Enter")
        expect(field(alice, "Message")).to_have_value("typed meanwhile")
        picture(alice, f"lost-{room}-light")
        picture(bob, f"lost-{room}-dark")
    with run_server(*CHAT, port=server.port):
        for page in (alice, bob):
            expect(page.get_by_role("log")).to_contain_text("You are back.")
            expect(page.locator("#status")).to_be_hidden()
        field(alice, "Message").press("Enter")
        expect(bob.get_by_role("log")).to_contain_text("typed meanwhile")


def test_with_resume_s_a_lost_network_costs_no_message_and_nobody_else_notices_it(window):
    with run_server(*CHAT, "--resume-s", "60", "--presence-grace-s", "0.1") as server:
        alice, bob = window(server.url), window(server.url)
        join(alice, "alice", "garden")
        join(bob, "bob", "garden")
        expect(people(alice)).to_have_count(2)
        alice.context.set_offline(True)
        say(bob, "meanwhile")
        alice.context.set_offline(False)
        expect(notes(alice).last).to_have_text("You are back.")
        say(alice, "afterwards")
        for page in (alice, bob):
            expect(texts(page)).to_have_text(["meanwhile", "afterwards"])
            expect(people(page)).to_have_text([re.compile("alice"), re.compile("bob")])
        expect(alice.locator("#people")).to_have_text("as alice, 2 here")
        expect(button(alice, "bob")).to_be_enabled()
        expect(notes(bob)).to_have_text(["You are in, as bob."])
        expect(alice.get_by_role("log")).not_to_contain_text("may be missing")
        server.wait_for("resumed on /ws/rooms")


def texts(page):
    return page.locator(".message .text")


def test_who_comes_later_sees_what_was_said_before(window, picture):
    with run_server(*CHAT) as server:
        alice, bob = window(server.url), window(server.url)
        join(alice, "alice", "garden")
        for number in range(1, 53):
            say(alice, f"message {number}")
        expect(texts(alice)).to_have_count(52)
        join(bob, "bob", "garden")
        expect(texts(bob)).to_have_text([f"message {number}" for number in range(3, 53)])
        say(alice, "and another")
        expect(texts(bob).last).to_have_text("and another")
        picture(bob, "history-wide-light")


def test_a_page_that_was_cut_off_shows_what_was_said_meanwhile_each_message_once(window):
    with RedisServer() as redis, run_server(*CHAT, "--redis", redis.url) as other:
        bob = window(other.url)
        join(bob, "bob", "garden")
        with run_server(*CHAT, "--redis", redis.url) as server:
            alice = window(server.url)
            join(alice, "alice", "garden")
            for number in range(1, 4):
                say(bob, f"before {number}")
            expect(texts(alice)).to_have_count(3)
            server.process.kill()
            expect(alice.get_by_role("log")).to_contain_text("The connection was lost.")
        for number in range(1, 61):
            say(bob, f"meanwhile {number}")
        expect(texts(bob)).to_have_count(63)
        with run_server(*CHAT, "--redis", redis.url, port=server.port):
            expect(notes(alice).last).to_have_text("You are back.")
            say(bob, "afterwards")
            missed = [f"meanwhile {number}" for number in range(1, 61)]
            expect(texts(alice)).to_have_text(["before 1", "before 2", "before 3", *missed, "afterwards"])
            expect(alice.get_by_role("log")).not_to_contain_text("may be missing")


def test_people_see_who_is_there_also_on_a_phone(window, picture):
    with run_server(*CHAT) as server:
        alice = window(server.url)
        join(alice, "alice", "garden")
        expect(people(alice)).to_have_text(["alice (you)"])
        bob = window(server.url, color_scheme="dark", **PHONE_390)
        join(bob, "bob", "garden")
        for page, texts in ((alice, ["alice (you)", "bob"]), (bob, ["alice", "bob (you)"])):
            expect(people(page)).to_have_text(texts)
            expect(page.locator("#people")).to_contain_text(", 2 here")
        expect(notes(alice)).to_have_text(["You are in, as alice.", "bob has come in."])
        expect(notes(bob)).to_have_text(["You are in, as bob."])
        say(alice, "Is there tea?")
        expect(alice.locator(".own .text")).to_have_text("Is there tea?")
        expect(bob.locator(".message .text")).to_have_text("Is there tea?")
        button(bob, "Leave").tap()
        expect(people(alice)).to_have_text(["alice (you)"])
        expect(notes(alice).last).to_have_text("bob has left.")


#: The 4 s for which somebody counts as typing are over when the test says so: a busy machine needs longer for a look.
TYPING_STAYS = """() => {
  const later = setTimeout;
  window.setTimeout = (call, ms, ...values) => {
    if (ms !== 4000) return later(call, ms, ...values);
    window.typingIsOver = call;
    return 0;
  };
}"""


def test_typing_is_shown(window, picture):
    with run_server(*CHAT) as server:
        alice, bob, phone = window(server.url), window(server.url), window(server.url, **PHONE_390)
        for page, name in ((alice, "alice"), (bob, "bob"), (phone, "carol")):
            join(page, name, "garden")
            page.evaluate(TYPING_STAYS)
        field(bob, "Message").press_sequentially("Hel")
        for page in (alice, phone):
            expect(page.locator("#typing")).to_have_text("bob is typing…")
        field(phone, "Message").press_sequentially("Hi")
        expect(alice.locator("#typing")).to_have_text("bob and carol are typing…")
        expect(bob.locator("#typing")).to_have_text("carol is typing…")
        picture(alice, "typing-wide-light")
        field(phone, "Message").fill("")  # the user has changed her mind
        expect(alice.locator("#typing")).to_have_text("bob is typing…")
        picture(phone, "typing-narrow-light")
        say(bob, "Hello")
        for page in (alice, phone):
            expect(page.locator(".message .text")).to_have_text("Hello")
            expect(page.locator("#typing")).to_have_text("")
        field(alice, "Message").press_sequentially("…")
        expect(bob.locator("#typing")).to_have_text("alice is typing…")
        alice.evaluate("typingIsOver()")  # as she does nothing else
        expect(bob.locator("#typing")).to_have_text("")


def test_a_second_tab_and_a_reload_are_the_same_person(window):
    with run_server(*CHAT) as server:
        alice, bob = window(server.url), window(server.url)
        join(alice, "alice", "garden")
        join(bob, "bob", "garden")
        expect(people(alice)).to_have_text(["alice (you)", "bob"])
        tab = bob.context.new_page()
        tab.goto(f"{server.url}/?room=garden")
        join(tab, "bob")
        expect(people(tab)).to_have_text(["alice", "bob (you)"])
        say(bob, "from one tab")
        for page in (bob, tab):
            expect(page.locator(".own .text")).to_have_text("from one tab")
        expect(alice.locator(".message .text")).to_have_text("from one tab")
        button(tab, "Leave").click()
        bob.reload()
        expect(people(bob)).to_have_text(["alice", "bob (you)"])
        say(bob, "after the reload")
        expect(alice.locator(".message .text").last).to_have_text("after the reload")
        expect(notes(alice)).to_have_text(["You are in, as alice.", "bob has come in."])
        expect(people(alice)).to_have_text(["alice (you)", "bob"])


def test_private_messages(window, picture):
    with run_server(*CHAT) as server:
        alice, bob, eve = window(server.url), window(server.url, color_scheme="dark", **PHONE_390), window(server.url)
        for page, name in ((alice, "alice"), (bob, "bob"), (eve, "eve")):
            join(page, name, "garden")
        button(alice, "bob").click()
        expect(button(alice, "bob")).to_have_attribute("aria-pressed", "true")
        expect(alice.locator("#private")).to_contain_text("Only to bob")
        expect(field(alice, "Message")).to_be_focused()
        alice.keyboard.type("A surprise for eve: cake")
        alice.keyboard.press("Enter")
        expect(alice.locator(".private.own")).to_contain_text("You, only to bob")
        expect(bob.locator(".message.private .text")).to_have_text("A surprise for eve: cake")
        button(bob, "alice, only to you").tap()  # answers it
        say(bob, "I like cake")
        expect(alice.locator(".private .text").last).to_have_text("I like cake")
        picture(alice, "private-wide-light")
        picture(bob, "private-narrow-dark")
        alice.keyboard.press("Escape")
        expect(alice.locator("#private")).to_be_hidden()
        button(bob, "To all").tap()
        say(bob, "Good morning")
        expect(eve.locator(".message .text")).to_have_text(["Good morning"])
        expect(alice.locator("#typing")).to_have_text("")
        # somebody who has left gets nothing, and the sender keeps the text
        button(alice, "eve").click()
        button(eve, "Leave").click()
        expect(people(alice)).to_have_text(["alice (you)", "bob"])
        say(alice, "Are you there?")
        expect(notes(alice).last).to_have_text("eve is not here, and has not received: Are you there?")
        expect(field(alice, "Message")).to_have_value("Are you there?")


def test_the_list_works_from_the_keyboard_and_keeps_the_focus(window):
    with run_server(*CHAT) as server:
        page, bob = window(server.url), window(server.url)
        join(page, "ann", "garden")
        join(bob, "bob", "garden")
        expect(people(page)).to_have_text(["ann (you)", "bob"])
        page.keyboard.press("Shift+Tab")  # to the messages
        page.keyboard.press("Shift+Tab")
        expect(button(page, "bob")).to_be_focused()
        eve = window(server.url)
        join(eve, "eve", "garden")
        eve.evaluate(TYPING_STAYS)
        field(eve, "Message").press_sequentially("x")
        expect(page.locator("#typing")).to_have_text("eve is typing…")
        expect(people(page)).to_have_text(["ann (you)", "bob", "eve"])
        expect(button(page, "bob")).to_be_focused()
        page.keyboard.press("Enter")
        expect(field(page, "Message")).to_be_focused()
        page.keyboard.type("only for you")
        page.keyboard.press("Enter")
        expect(bob.locator(".private .text")).to_have_text("only for you")
        page.keyboard.press("Escape")
        page.keyboard.type("for all")
        page.keyboard.press("Enter")
        expect(eve.locator(".message .text")).to_have_text("for all")


def test_two_workers_with_redis_show_one_list(window, redis_server):
    options = ["--redis", redis_server.url]
    with run_server(*CHAT, *options) as one, run_server(*CHAT, *options) as two:
        alice, bob = window(one.url), window(two.url)
        join(alice, "alice", "garden")
        join(bob, "bob", "garden")
        expect(people(alice)).to_have_text(["alice (you)", "bob"])
        expect(people(bob)).to_have_text(["alice", "bob (you)"])
        bob.evaluate(TYPING_STAYS)
        field(bob, "Message").press_sequentially("Hel")
        expect(alice.locator("#typing")).to_have_text("bob is typing…")
        say(bob, "Hello")
        expect(alice.locator(".message .text")).to_have_text("Hello")
        button(alice, "bob").click()
        say(alice, "psst")
        expect(bob.locator(".private .text")).to_have_text("psst")
        expect(notes(alice)).to_have_text(["You are in, as alice.", "bob has come in."])
        alice.reload()
        expect(people(alice)).to_have_text(["alice (you)", "bob"])
        say(alice, "I am back")
        expect(bob.locator(".message .text").last).to_have_text("I am back")
        expect(notes(bob)).to_have_text(["You are in, as bob."])
        button(bob, "Leave").click()
        expect(people(alice)).to_have_text(["alice (you)"])
        expect(notes(alice)).to_have_text(["You are in, as alice.", "bob has left."])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_long_names_and_many_people_fit(window, picture, theme, width):
    options = PHONE_390 if width == "narrow" else {}
    with run_server(*CHAT) as server, ExitStack() as stack:
        page = window(server.url, color_scheme=theme, **options)
        join(page, "ann", "garden")
        names = ["long" * 10, *(f"guest {number}" for number in range(30))]
        for name in names:
            url = f"{server.ws_url}/ws/rooms?{urlencode({'user': name, 'room': 'garden'})}"
            guest = stack.enter_context(connect(url))
            guest.send(json.dumps({"type": "typing", "typing": True}))
        guest.send(json.dumps({"type": "private", "to": "ann", "text": "x" * 200}))
        guest.send(json.dumps({"type": "message", "text": "Hello"}))
        expect(people(page)).to_have_count(32)
        expect(page.locator("#typing")).to_have_text("30 people are typing…")
        button(page, names[0]).click()
        say(page, "y" * 200)
        expect(page.locator(".message")).to_have_count(3)
        expect(button(page, "Send")).to_be_in_viewport(ratio=1)
        expect(page.locator(".message").last).to_be_in_viewport()
        assert has_no_sideways_scrolling(page)
        assert low_contrasts(page) == []
        picture(page, f"many-{width}-{theme}")


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
