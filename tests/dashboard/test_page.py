"""The page about a server, in Chromium: what it shows of a real server, and what can be done from it.

Its client is in tests/dashboard/test_client.py, how it behaves for whoever looks at it in
tests/dashboard/test_manners.py, the server's side in tests/dashboard/test_dashboard.py.
"""

from __future__ import annotations

import re

from tests.browsing import button, expect, field
from tests.dashboard_windows import HOST, ended, row, tab
from tests.programs import EXAMPLES, receive, run_server, wait_until

# What there is


def test_it_lists_endpoints_with_their_functions_and_figures(page_of, host_script, guests, picture):
    with run_server(host_script, EXAMPLES / "chat.py", "--reload") as server:
        page = page_of(server)
        expect(page).to_have_url(f"{server.url}/_wsthreads/#/overview")
        expect(row(page, "/ws/host")).to_contain_text(f"{server.ws_url}/ws/host")
        expect(row(page, "/ws/host")).to_contain_text("host.js")
        expect(row(page, "/ws/host")).to_contain_text("onOpen, onMessage")
        expect(row(page, "/ws/host").locator(".tag")).to_have_text("javascript")
        expect(row(page, "/ws/chat").locator(".tag")).to_have_text("python")
        sessions, rooms = (
            row(page, "/ws/host").locator(".number").nth(0),
            row(page, "/ws/host").locator(".number").nth(1),
        )
        expect(sessions).to_have_text("0")
        guests(server, "room=a", "room=b", "room=b")
        expect(sessions).to_have_text("3")
        expect(rooms).to_have_text("2")
        expect(page.locator("#process")).to_contain_text("development")
        expect(page.locator("#process")).to_contain_text("reloads")
        picture(page, "overview")


def test_it_shows_how_long_calls_of_a_script_wait_for_others(page_of, tmp_path, guests):
    script = tmp_path / "host.js"
    script.write_text("""export function onMessage(session, message) {
      const end = Date.now() + Number(message);
      while (Date.now() < end);
    }""")
    with run_server(script, EXAMPLES / "chat.py") as server:
        page = page_of(server)
        waits = row(page, "/ws/host").locator(".waits")
        expect(waits).to_have_text("")
        [guest] = guests(server, "user=ann")
        guests(server, "user=bob", path="/ws/chat")
        for _ in range(6):
            guest.send("400")
        shown = r"^waits in the script: median \S+ (µs|ms|s), longest (\d{2,3} ms|\S+ s)$"  # at least 10 ms
        expect(waits).to_have_text(re.compile(shown))
        expect(row(page, "/ws/chat").locator(".waits")).to_have_text("")


def test_plots_have_axes_and_values_by_pointer_and_by_keyboard(page_of, host_script, guests):
    with run_server(host_script) as server:
        [guest] = guests(server, "user=ann")
        page = page_of(server)
        plot = page.locator(".plot", has_text="Messages").first
        for _ in range(20):
            guest.send("hello")
        expect(plot.locator("path.line").first).to_have_attribute("d", re.compile("^M.*L"))
        expect(plot.locator("text").first).to_have_text("0/s")
        slider = plot.get_by_role("slider")
        slider.focus()
        for _ in range(2):
            page.keyboard.press("ArrowLeft")
        expect(slider).to_have_attribute("aria-valuetext", re.compile(r"Messages at \d\d:\d\d:\d\d: in [\d.]+/s, out"))
        expect(plot.locator(".cursor")).to_have_attribute("d", re.compile("^M"))
        page.keyboard.press("Escape")
        expect(plot.locator(".cursor")).to_have_attribute("d", "")
        other = page.locator(".plot", has_text="Sessions and rooms")
        other.locator("svg[role=slider]").hover()
        expect(plot.locator(".cursor")).to_have_attribute("d", re.compile("^M"))  # all show the same moment
        assert page.locator(".key path").first.get_attribute("stroke-dasharray") == ""
        assert page.locator(".key path").nth(1).get_attribute("stroke-dasharray") != ""


def test_sessions_are_found_looked_into_and_kicked(page_of, host_script, guests, picture):
    with run_server(host_script) as server:
        ann, _ = guests(server, "user=ann&token=hush-hush&room=garden", "user=bob")
        page = page_of(server, "Sessions")
        expect(row(page, "bob")).to_be_visible()
        expect(page.locator("#sessions-count")).to_have_text("2 sessions")
        page.get_by_role("searchbox", name="Filter sessions").fill("GARDEN")
        expect(row(page, "bob")).to_have_count(0)
        expect(page.locator("#sessions-count")).to_have_text("1 of 2 sessions")
        expect(row(page, "ann")).to_contain_text("garden")
        row(page, "ann").click()
        view = page.get_by_role("complementary", name="The chosen session")
        for text in ("127.0.0.1", "/ws/host", "garden", "hidden (9 characters)", "user-agent"):
            expect(view).to_contain_text(text)
        expect(view).not_to_contain_text("hush")
        picture(page, "session")
        button(view, "Kick …").click()
        button(page.get_by_role("dialog"), "Cancel").click()
        button(view, "Kick …").click()
        expect(page.get_by_role("dialog")).to_contain_text("Kick ann?")
        button(page.get_by_role("dialog"), "Kick").click()
        wait_until(lambda: ended(ann), "the kick")
        assert ann.close_code == 1008
        expect(view).to_contain_text("This session has ended.")
        expect(button(view, "Kick …")).to_be_disabled()
        expect(row(page, "ann")).to_have_count(0)


def test_a_question_is_not_answered_by_the_end_of_the_one_before(page_of, host_script, guests):
    with run_server(host_script) as server:
        [ann] = guests(server, "user=ann")
        page = page_of(server, "Sessions")
        row(page, "ann").click()
        kick = button(page.locator("#session"), "Kick …")
        expect(kick).to_be_visible()
        # In one go: the first dialog tells of its end only when the second is open.
        kick.evaluate("(kick) => { kick.click(); document.querySelector('dialog').close(''); kick.click(); }")
        page.keyboard.press("Enter")
        wait_until(lambda: ended(ann), "the kick")


def test_a_session_is_closed_with_a_code_and_a_reason(page_of, host_script, guests):
    with run_server(host_script) as server:
        [ann] = guests(server, "user=ann")
        page = page_of(server, "Sessions")
        row(page, "ann").click()
        button(page.locator("#session"), "Close …").click()
        dialog = page.get_by_role("dialog")
        field(dialog, "Code (1000 to 1014, 3000 to 4999)").fill("4007")
        field(dialog, "Reason").fill("enough")
        page.keyboard.press("Enter")
        wait_until(lambda: ended(ann), "the close")
        assert (ann.close_code, ann.close_reason) == (4007, "enough")


def test_sessions_are_sorted_and_cut_off_by_the_server(page_of, host_script, guests):
    with run_server(host_script) as server:
        clients = guests(server, *(f"user=guest-{number}" for number in range(55)))
        clients[7].send("hello")
        page = page_of(server, "Sessions")
        expect(page.locator("#sessions-rows tr")).to_have_count(50)
        expect(page.locator("#sessions-count")).to_have_text("55 sessions, the first 50 shown")
        page.get_by_role("button", name="Received").click()
        expect(page.locator("#sessions-rows tr").first).to_contain_text("guest-7")
        heading = page.get_by_role("columnheader", name="Received")
        expect(heading).to_have_attribute("aria-sort", "descending")
        page.get_by_role("button", name="Received").click()
        expect(heading).to_have_attribute("aria-sort", "ascending")
        expect(row(page, "guest-7")).to_have_count(0)  # the last, and so not among the first fifty
        page.get_by_role("combobox", name="Rows").select_option("100")
        expect(page.locator("#sessions-rows tr").last).to_contain_text("guest-7")


def test_focus_and_selection_stay_while_lists_are_renewed(page_of, host_script, guests):
    with run_server(host_script) as server:
        guests(server, "user=ann", "user=bob")
        page = page_of(server, "Sessions")
        row(page, "ann").get_by_role("button").focus()
        page.evaluate("getSelection().selectAllChildren(document.querySelector('#sessions-rows tr:last-child td'))")
        chosen = page.evaluate("getSelection().toString()")
        guests(server, "user=carol", "user=dave")
        expect(page.locator("#sessions-rows tr")).to_have_count(4)
        expect(row(page, "ann").get_by_role("button")).to_be_focused()
        assert page.evaluate("getSelection().toString()") == chosen == "/ws/host"


def test_rooms_show_their_members_and_hear_a_broadcast(page_of, host_script, guests, picture):
    with run_server(host_script) as server:
        ann, bob, eve = guests(server, "user=ann&room=garden", "user=bob&room=garden", "user=eve&room=cellar")
        page = page_of(server, "Rooms")
        expect(row(page, "garden").locator("[data-label=Members]")).to_have_text("2")
        row(page, "garden").click()
        view = page.get_by_role("complementary", name="The chosen room")
        expect(view.locator("li")).to_have_count(2)
        field(view, "Message to all in garden").fill("closing in 5 minutes")
        picture(page, "room")
        button(view, "Broadcast").click()
        assert {receive(ann), receive(bob)} == {"closing in 5 minutes"}
        expect(page.locator("#toast")).to_be_visible()
        eve.send("alone")
        assert receive(eve) == "alone"
        button(view, "ann").click()
        expect(page.locator("#session")).to_contain_text("garden")
        button(page.locator("#session"), "garden").click()
        button(view, "Show them under Sessions").click()
        expect(page.locator("#sessions-rows tr")).to_have_count(2)
        button(page, "Show all rooms, not only garden").click()
        expect(page.locator("#sessions-rows tr")).to_have_count(3)


# What handlers throw and write


def test_an_exception_is_told_at_once_with_its_file_and_line(page_of, host_script, guests, picture):
    with run_server(host_script) as server:
        [ann] = guests(server, "user=ann")
        page = page_of(server, "Rooms")
        expect(row(page, "lobby")).to_be_visible()
        ann.send("throw")
        expect(page.locator("#latest")).to_contain_text("host.js:10")
        expect(tab(page, "Console")).to_contain_text("1")
        button(page, "Show").click()
        expect(page.locator("#latest")).to_be_hidden()
        line = page.locator("#console-lines li.error")
        expect(line).to_contain_text("TypeError")
        expect(line).to_contain_text("host.js:10")
        expect(line.locator(".stack")).to_be_hidden()
        line.locator("summary").click()
        expect(line.locator(".stack")).to_contain_text("host.js:6")
        picture(page, "exception")
        line.get_by_role("button", name="session").click()
        expect(page.locator("#session h2")).to_have_text("ann")


def test_the_console_is_filtered_by_level_and_text_and_can_be_paused(page_of, host_script, guests):
    with run_server(host_script) as server:
        [ann] = guests(server, "user=ann")
        page = page_of(server, "Console")
        for level in ("info", "warn", "error"):
            ann.send(f"log {level}")
        lines = page.locator("#console-lines li", has_text="careful")
        expect(lines).to_have_count(3)
        expect(lines.first).to_contain_text("{ members: 2 }")
        expect(lines.first).to_contain_text("host.js:7")
        page.get_by_role("combobox", name="Lowest level shown").select_option("warning")
        expect(lines).to_have_count(2)
        page.get_by_role("searchbox", name="Filter the console").fill("no such text")
        expect(lines).to_have_count(0)
        page.get_by_role("searchbox", name="Filter the console").fill("HOST.JS")
        expect(lines).to_have_count(2)
        button(page, "Pause").click()
        ann.send("log error")
        expect(page.get_by_role("button", name="Resume (1 new)")).to_be_visible()
        expect(lines).to_have_count(2)
        page.get_by_role("button", name="Resume (1 new)").click()
        expect(lines).to_have_count(2)
        expect(lines.last).to_contain_text("error ×2")
        button(page, "Clear").click()
        expect(lines).to_have_count(0)


def test_a_failed_reload_is_shown_until_it_is_mended(page_of, host_script, guests, picture):
    with run_server(host_script, "--reload") as server:
        [ann] = guests(server, "user=ann")
        page = page_of(server)
        host_script.write_text(HOST.replace("const shout", "const const"))
        failure = page.get_by_role("alert").filter(has_text="Not reloaded")
        expect(failure).to_contain_text("host.js:10")
        expect(failure).to_contain_text("SyntaxError")
        picture(page, "failed-reload")
        page.reload()
        expect(failure).to_contain_text("host.js:10")  # for those who come later, too
        host_script.write_text(HOST + "export function onClose() {}\n")
        expect(page.locator(".failure")).to_have_count(0)
        expect(row(page, "/ws/host")).to_contain_text("onOpen, onMessage, onClose")
        ann.send("still here")
        assert receive(ann) == "still here"
