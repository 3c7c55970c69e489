"""The client on the page about a server, in Chromium: connections of several users, beside each other."""

from __future__ import annotations

import re

import pytest

from tests.browsing import PHONE, button, expect, field
from tests.programs import EXAMPLES, run_server
from tests.wire import Echo, serving
from wsthreads import WebSocketApp

ECHO = """\
export function onOpen(session) { session.send("hello " + session.getParameter("user")); }
export function onMessage(session, message) {
  if (message === "bye") session.close(4001, "as you wish");
  else session.send(message);
}
"""


@pytest.fixture
def server(tmp_path):
    script = tmp_path / "echo.js"
    script.write_text(ECHO)
    with run_server(script, EXAMPLES / "chat.js", "--subprotocol", "chat.v2") as server:
        yield server


@pytest.fixture
def client(window, server):
    """Open the client, ready to connect to an endpoint."""

    def open_client(endpoint="/ws/echo", **options):
        page = window(f"{server.url}/_wsthreads/", **options)
        button(page, f"Try {endpoint}").click()
        expect(page.get_by_role("combobox", name="Endpoint", exact=True)).to_have_value(endpoint)
        return page

    return open_client


def connect(page, user=None):
    if user is not None:
        field(page, "User").fill(user)
    button(page, "Connect").click()
    return pane(page, user or "alice")


def pane(page, name):
    found = page.locator(".pane", has=page.get_by_role("heading", name=name, exact=True, include_hidden=True))
    expect(found).to_have_attribute("data-state", "open")
    return found


def say(pane, text):
    message = pane.get_by_placeholder(re.compile("Message|01 ff"))
    message.fill(text)
    message.press("Enter")


def test_two_users_chat_side_by_side(client, picture):
    page = client("/ws/chat")
    alice, bob = connect(page), connect(page, "bob")
    expect(alice).to_contain_text('"user": "bob"')
    say(alice, "Hello <b>Bob</b>")
    expect(alice.locator(".out")).to_contain_text("Hello <b>Bob</b>")
    expect(bob.locator(".in").last).to_contain_text("Hello <b>Bob</b>")
    expect(bob.locator(".in .size").last).to_have_text(re.compile(r"\d+ B"))
    expect(bob.locator(".in time").last).to_have_text(re.compile(r"\d\d:\d\d:\d\d\.\d{3}"))
    expect(field(page, "User")).to_have_value("carol")  # the next one is somebody else
    picture(page, "client")


def test_a_user_who_is_kicked_sees_the_code_in_words(client):
    page = client("/ws/chat")
    connect(page, "bob")
    page.get_by_role("tab", name="Sessions").click()
    button(page, "bob").click()
    button(page, "Kick …").click()
    button(page, "Kick").click()
    expect(page.locator("#session")).to_contain_text("This session has ended.")
    page.get_by_role("tab", name="Client").click()
    words = "closed: 1008 policy violation: refused, kicked, or over a limit: “kicked by the operator”"
    expect(page.locator(".pane-state")).to_have_text(words)
    expect(page.locator(".frames .bad")).to_contain_text(words)


def test_five_more_connect_at_once_and_can_be_tabs(client):
    page = client("/ws/chat")
    button(page, "5 more").click()
    expect(page.locator("#client-count")).to_have_text("5 connections, 5 open")
    assert page.locator(".pane h3").all_inner_texts() == ["alice", "bob", "carol", "dave", "erin"]
    page.get_by_text("Tabs", exact=True).click()
    expect(page.locator(".pane:visible")).to_have_count(1)
    page.get_by_role("tab", name="alice").focus()
    page.keyboard.press("ArrowRight")
    expect(pane(page, "bob")).to_be_visible()
    button(pane(page, "bob"), "Remove bob").click()
    expect(page.locator("#client-count")).to_have_text("4 connections, 4 open")
    expect(pane(page, "carol")).to_be_visible()
    button(page, "Close all").click()
    expect(page.locator("#client-count")).to_have_text("4 connections, 0 open")
    button(page, "Remove closed").click()
    expect(page.locator("#no-panes")).to_be_visible()


def test_parameters_and_subprotocols_are_sent(client, server):
    page = client()
    field(page, "User").fill("ann lee")
    field(page, "More parameters").fill("x=1")
    expect(field(page, "Subprotocols")).to_have_attribute("placeholder", "chat.v2")
    field(page, "Subprotocols").fill("other, chat.v2")
    expect(page.locator("#client-address")).to_have_text(f"{server.ws_url}/ws/echo?user=ann+lee&x=1")
    button(page, "Connect").click()
    ann = pane(page, "ann lee")
    expect(ann).to_contain_text("hello ann lee")
    expect(ann.locator(".pane-state")).to_have_text("open, speaking chat.v2")
    field(page, "Subprotocols").fill("()")
    button(page, "Connect").click()
    expect(page.locator(".pane").last.locator(".frames .bad")).to_contain_text("subprotocol")


def test_close_codes_are_told_in_words(client):
    page = client()
    alice = connect(page)
    say(alice, "bye")
    state = page.locator(".pane-state")
    expect(state).to_have_text("closed: 4001 the application’s own code: “as you wish”")
    button(page, "Reconnect alice").click()
    expect(state).to_have_text("open")
    button(page, "Close alice with a code").click()
    dialog = page.get_by_role("dialog")
    field(dialog, "Code (1000 or 3000 to 4999)").fill("1008")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()  # a page may not send that
    field(dialog, "Code (1000 or 3000 to 4999)").fill("4100")
    field(dialog, "Reason").fill("enough")
    page.keyboard.press("Enter")
    expect(state).to_have_text("closed: 4100 the application’s own code")
    expect(page.locator(".frames .note").last).to_contain_text("closing with 4100: “enough”")


def test_a_refused_handshake_and_a_lost_connection_are_told(client, server):
    page = client()
    connect(page)
    server.process.kill()
    expect(page.locator(".pane-state")).to_have_text(
        re.compile("closed: 1006 no close frame: the handshake was refused, or")
    )
    expect(button(page, "Send")).to_be_disabled()


def test_json_unfolds_and_is_copied(client):
    page = client()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    alice = connect(page)
    text = '{"type":"move","to":[3,{"x":null}],"note":"a <i>b</i>"}'
    say(alice, text)
    frame = alice.locator(".in").last
    expect(frame.locator("summary").first).to_have_text(
        '{"type": "move", "to": [3, {"x": null}], "note": "a <i>b</i>"}'
    )
    frame.locator("summary").first.click()
    expect(frame.locator(".json")).to_contain_text('note: "a <i>b</i>"')
    frame.locator("summary", has_text="to: ").click()
    expect(frame.locator(".json-branch")).to_contain_text("0: 3")
    frame.hover()
    button(frame, "Copy").click()
    expect(frame.locator(".copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == text
    page.get_by_label("Unfold JSON").check()
    say(alice, text)
    expect(alice.locator(".in").last.locator(".json")).to_be_visible()


def test_bytes_go_both_ways_as_hex(client):
    page = client()
    alice = connect(page)
    alice.get_by_label("Kind of message from alice").select_option("hex")
    say(alice, "01 ff 7")
    expect(alice.locator(".frames .bad")).to_contain_text("hexadecimal digits come in pairs")
    say(alice, "01 ff 4142")
    frame = alice.locator(".in").last
    expect(frame.locator("summary")).to_have_text("binary: 01 ff 41 42")
    expect(frame.locator(".size")).to_have_text("4 B")
    frame.locator("summary").click()
    expect(frame.locator("pre")).to_have_text(re.compile(r"0000  01 ff 41 42 +··AB"))


def test_arrow_keys_bring_back_what_was_sent(client):
    page = client()
    alice = connect(page)
    for text in ("one", "two"):
        say(alice, text)
    message = field(page, "Message from alice")
    message.fill("typed")
    for key, value in (("Up", "two"), ("Up", "one"), ("Up", "one"), ("Down", "two"), ("Down", "typed")):
        message.press(f"Arrow{key}")
        expect(message).to_have_value(value)
    message.press("Shift+Enter")
    expect(message).to_have_value("typed\n")


def test_a_flood_is_shown_in_bounds(client):
    page = client()
    alice = connect(page)
    page.evaluate(
        """() => {
          const form = document.querySelector(".compose");
          for (let n = 0; n < 400; n++) { form.querySelector("textarea").value = `n ${n}`; form.requestSubmit(); }
        }"""
    )
    expect(alice.locator(".in").last).to_contain_text("n 399")
    assert alice.locator(".frames li").count() <= 300
    say(alice, "x" * 5000)
    long = alice.locator(".in").last
    expect(long.locator(".size")).to_have_text("5 kB")
    long.locator("summary").click()
    expect(long.locator(".content details")).to_have_text(re.compile(".{5001}"))  # its event "toggle" fills it


def test_on_a_phone_connections_are_tabs(client):
    page = client(**PHONE)
    connect(page)
    connect(page, "bob")
    expect(page.locator(".pane:visible")).to_have_count(1)
    expect(page.get_by_role("tab", name="bob")).to_have_attribute("aria-selected", "true")


WHERE = """\
export function onOpen(session) {
  session.send(["name", "n", "file", "id"].map((name) => session.getPathParameter(name)).join(" | "));
}
"""


def test_the_parameters_of_a_path_are_filled_in(window, tmp_path):
    (tmp_path / "where.js").write_text(WHERE)
    path = "/ws/<name>/<int:n>/<any('at','by'):how>/<uuid:id>/<path:file>"
    with run_server("where.js", "--path", path, cwd=tmp_path) as server:
        page = window(f"{server.url}/_wsthreads/")
        expect(page.locator("#endpoints")).to_contain_text(f"{server.ws_url}{path}")
        button(page, f"Try {path}").click()
        client = connect(page)
        an_id = "123e4567-e89b-12d3-a456-426614174000"
        expect(client.locator(".in")).to_contain_text(f"name | 1 | file | {an_id}")
        field(page, "<name>").fill("a/b é?")
        field(page, "<path:file>").fill("c d/e%.txt")
        field(page, "<int:n>").fill("42")
        shown = page.locator("#client-address")
        expect(shown).to_contain_text(f"/ws/a%2Fb%20%C3%A9%3F/42/at/{an_id}/c%20d/e%25.txt?user=")
        field(page, "<name>").fill("é?")
        expect(connect(page, "bob").locator(".in")).to_contain_text(f"é? | 42 | c d/e%.txt | {an_id}")
        field(page, "<name>").fill("")
        button(page, "5 more").click()
        button(page, "Connect").click()
        expect(page.locator("#client-count")).to_have_text("2 connections, 2 open")


def test_fields_of_parameters_belong_to_the_chosen_endpoint(window):
    app = WebSocketApp(dashboard_token="a-token-of-this-test")
    for path in ("/ws/plain", "/ws/<room>", "/ws/<room>/<int:seat>"):
        app.add_handler(path, Echo)
    with serving(app) as port:
        page = window(f"http://127.0.0.1:{port}/_wsthreads/#token=a-token-of-this-test")
        button(page, "Try /ws/plain").click()
        fields = page.locator("#client-path input")
        expect(fields).to_have_count(0)
        endpoints = page.get_by_role("combobox", name="Endpoint", exact=True)
        endpoints.select_option("/ws/<room>")
        expect(fields).to_have_count(1)
        field(page, "<room>").fill("garden")
        endpoints.select_option("/ws/<room>/<int:seat>")
        expect(fields).to_have_count(2)
        expect(field(page, "<room>")).to_have_value("garden")
        expect(page.locator("#client-address")).to_contain_text("/ws/garden/1?user=")
