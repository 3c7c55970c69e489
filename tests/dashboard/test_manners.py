"""How the page about a server behaves: its connection, its token, markup from clients, keyboards, phones, themes."""

from __future__ import annotations

import configparser
import json
import re
import signal
from pathlib import Path
from urllib.parse import urlencode

import pytest

import wsthreads.dashboard
from tests.browsing import PHONE, button, expect, field, has_no_sideways_scrolling, low_contrasts
from tests.dashboard_windows import HOST, ended, row, tab
from tests.programs import ROOT, connect, receive, run_server, wait_until
from wsthreads import WebSocketApp

PAGE = Path(wsthreads.dashboard.__file__).parent / "page"
PARTS = ("Overview", "Client", "Sessions", "Rooms", "Console")
EVIL = "<img src=x onerror=\"document.title='owned'\">"
TOKEN = "a-token-of-16-characters-or-more"


# The page's own connection


def test_it_says_that_the_server_is_gone_and_comes_back_with_it(page_of, host_script, guests):
    with run_server(host_script) as server:
        page = page_of(server, "Sessions")
        guests(server, "user=ann")
        expect(row(page, "ann")).to_be_visible()
        assert server.end() == 0
        expect(page.locator("#state-text")).to_have_text("the server shuts down")
        expect(page).to_have_title("(the server shuts down) wsthreads")
        button(page, "Try now").click()
        expect(page.locator("#countdown")).to_contain_text("trying")
    with run_server(host_script, port=server.port) as server:  # it comes back by itself, within five seconds
        expect(page.locator("#state-text")).to_have_text("live")
        expect(page.locator("#no-sessions")).to_contain_text("No client is connected.")
        guests(server, "user=bob")
        expect(row(page, "bob")).to_be_visible()


def test_it_says_that_the_server_is_stuck(window, host_script):
    with run_server(host_script) as server:
        page = window()
        page.clock.install()
        page.goto(f"{server.url}/_wsthreads/")
        expect(page.locator("#state-text")).to_have_text("live")
        server.process.send_signal(signal.SIGSTOP)
        try:
            page.clock.fast_forward(20_000)
            expect(page.locator("#state-text")).to_have_text("the server is silent")
        finally:
            server.process.send_signal(signal.SIGCONT)
        expect(page.locator("#state-text")).to_have_text("live")


def test_it_follows_a_restart_for_new_python(page_of, tmp_path):
    handler = tmp_path / "host.py"
    handler.write_text("def on_open(session): ...\n")
    with run_server(handler, "--reload") as server:
        page = page_of(server)
        expect(row(page, "/ws/host")).to_contain_text("on_open")
        handler.write_text("def on_open(session): ...\n\ndef on_message(session, message): ...\n")
        expect(row(page, "/ws/host")).to_contain_text("on_open, on_message")
        expect(page.locator("#state-text")).to_have_text("live")


@pytest.fixture
def guarded(serve):
    """A server whose page needs `TOKEN`."""
    app = WebSocketApp(dashboard_token=TOKEN)
    app.add_handler("/ws/host", type("Host", (), {"on_message": lambda *_: None}))
    return serve(app)


def test_a_token_is_asked_for_and_kept(window, guarded, picture):
    page = window(f"{guarded.url}/_wsthreads/")
    expect(page.get_by_role("alert").filter(has_text="missing")).to_be_visible()
    expect(page.get_by_role("tab").first).to_be_hidden()
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    picture(page, "token")
    page.keyboard.type("not-the-token-at-all")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="wrong")).to_be_visible()
    page.get_by_label("Token", exact=True).fill(TOKEN)
    button(page, "Open the page").click()
    expect(row(page, "/ws/host")).to_be_visible()
    expect(page.get_by_label("Token", exact=True)).to_be_hidden()
    page.reload()
    expect(row(page, "/ws/host")).to_be_visible()
    assert TOKEN not in page.evaluate("document.documentElement.outerHTML + document.cookie")


@pytest.mark.parametrize("form", ["#token=", "?token="])
def test_a_token_in_the_address_is_taken_out_of_it(window, guarded, form):
    page = window(f"{guarded.url}/_wsthreads/{form}{TOKEN}")
    expect(row(page, "/ws/host")).to_be_visible()
    assert TOKEN not in page.url
    assert page.evaluate("history.length") <= 2  # about:blank, and the page


# For everybody


def test_nothing_that_a_client_sends_becomes_markup(page_of, host_script, guests):
    query = urlencode({"user": EVIL, "room": EVIL, EVIL: EVIL})
    with run_server(host_script) as server:
        page = page_of(server, "Sessions")
        client = connect(
            f"{server.ws_url}/ws/host?{query}", additional_headers={"X-Evil": EVIL}, user_agent_header=EVIL
        )
        with client as ann:
            row(page, EVIL).click()
            expect(page.locator("#session")).to_contain_text("x-evil")
            page.locator("#session .chip", has_text=EVIL).click()
            expect(page.locator("#room h2")).to_have_text(EVIL)
            field(page.locator("#room"), f"Message to all in {EVIL}").fill(EVIL)
            button(page.locator("#room"), "Broadcast").click()
            assert receive(ann) == EVIL
            tab(page, "Console").click()
            ann.send("throw")
            expect(page.locator("#console-lines")).to_contain_text("TypeError")
        assert page.locator("main img").count() == 0
        assert "owned" not in page.title()


def test_its_scripts_make_no_markup_of_texts():
    for file in PAGE.rglob("*.js"):
        text = file.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser", text
        ), file
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"\bstyle=|<style|\son\w+=|<script(?! (type=\"module\" )?src=)", page)


def test_all_of_its_files_are_in_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["wsthreads.dashboard"].split(", ")
    packaged = {file for pattern in patterns for file in PAGE.parent.glob(pattern) if file.is_file()}
    assert packaged == {file for file in PAGE.rglob("*") if file.is_file()}


def test_every_part_is_reached_from_the_keyboard_alone(page_of, host_script, guests):
    with run_server(host_script) as server:
        [ann] = guests(server, "user=ann&room=garden")
        page = page_of(server)
        press = page.keyboard.press
        press("Tab")
        expect(page.locator("#skip")).to_be_focused()
        expect(page.locator("#skip")).to_be_in_viewport()
        press("Enter")
        expect(page.locator("#main")).to_be_focused()
        tab(page, "Overview").focus()
        for part in ("Client", "Sessions"):
            press("ArrowRight")
            expect(tab(page, part)).to_be_focused()
            expect(page.get_by_role("tabpanel", name=part)).to_be_visible()
        expect(row(page, "ann")).to_be_visible()
        tab_to(page, page.locator("#sessions-rows button"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        press("Enter")
        expect(page.locator("#session h2")).to_be_focused()
        tab_to(page, page.locator("#session .danger"))
        press("Enter")
        press("Escape")  # no, not yet
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator("#session .danger")).to_be_focused()
        press("Enter")
        press("Enter")
        wait_until(lambda: ended(ann), "the kick")
        press("Escape")
        expect(page.locator("#session")).to_be_hidden()


def test_the_view_of_a_session_that_ends_keeps_the_focus(page_of, host_script, guests):
    with run_server(host_script) as server:
        [ann] = guests(server, "user=ann")
        page = page_of(server, "Sessions")
        page.get_by_role("button", name="ann").click()
        page.locator("#session .danger").focus()
        ann.close()
        expect(page.locator("#session")).to_contain_text("This session has ended.")
        page.keyboard.press("Escape")
        expect(page.locator("#session")).to_be_hidden()


def tab_to(page, locator, most=40):
    for _ in range(most):
        page.keyboard.press("Tab")
        if locator.evaluate_all("(elements) => elements.includes(document.activeElement)"):
            return
    raise AssertionError(f"not reached by {most} tabs: {locator}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_a_phone_and_in_either_theme(page_of, host_script, guests, picture, scheme):
    with run_server(host_script, "--reload") as server:
        name = "a-user-with-a-name-" + "that-goes-on-and-on-" * 6
        ann, *_ = guests(server, f"user={name}&room={'a-room-' * 20}", *(f"user=guest-{number}" for number in range(4)))
        page = page_of(server, color_scheme=scheme, **PHONE)
        for message in ("log info", "log warn", "log error", "throw"):
            ann.send(message)
        host_script.write_text(HOST.replace("const shout", "const const"))
        expect(page.locator(".failure")).to_be_visible()
        expect(page.locator("#latest")).to_be_visible()
        for part in PARTS:
            tab(page, part).tap()
            if part == "Client":
                button(page, "5 more").tap()
                expect(page.locator("#client-count")).to_have_text("5 connections, 5 open")
            if part in ("Sessions", "Rooms"):
                page.locator("tbody:visible button.name").first.tap()
                expect(page.get_by_role("complementary")).to_be_visible()
            assert has_no_sideways_scrolling(page), part
            assert low_contrasts(page) == [], part
            picture(page, f"{part.lower()}-phone-{scheme}")


def test_the_theme_is_chosen_and_kept(page_of, host_script):
    with run_server(host_script) as server:
        page = page_of(server, color_scheme="dark")
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.get_by_role("button", name="Theme: system").click()
        page.get_by_role("button", name="Theme: light").wait_for()
        light = page.evaluate(background)
        assert light != dark
        page.reload()
        assert page.evaluate(background) == light
        page.get_by_role("button", name="Theme: light").click()
        assert page.evaluate(background) == dark


def test_lists_are_asked_for_only_where_they_are_seen(window, host_script):
    with run_server(host_script) as server:
        page = window()
        sent = []

        def note(data):
            if data.startswith("{"):  # the others are the protocol's own
                sent.append(json.loads(data))

        page.on("websocket", lambda socket: socket.on("framesent", note))
        page.goto(f"{server.url}/_wsthreads/#/overview")
        expect(page.locator("#state-text")).to_have_text("live")
        tab(page, "Sessions").click()
        tab(page, "Rooms").click()
        tab(page, "Console").click()
        expect(page.locator("#console")).to_be_visible()
        wait_until(lambda: len(sent) >= 4 and page.title(), "what the page has sent")
        steps = [(message["type"], message["list"]) for message in sent]
        assert (
            steps.index(("watch", "sessions")) < steps.index(("unwatch", "sessions")) < steps.index(("watch", "rooms"))
        )
        assert steps[-1] == ("unwatch", "rooms")
