"""The page about a server, in Chromium: how it looks with little to show, with much, and on a phone."""

from __future__ import annotations

import re

from tests.browsing import PHONE, expect, has_no_sideways_scrolling
from tests.dashboard_windows import row, tab
from tests.programs import connect, run_server

PHONE_390 = {**PHONE, "viewport": {"width": 390, "height": 844}}


def shown_samples(page, samples, endpoint="", span=300):
    """What the plots are given of these samples, each (at, messages a second, p99)."""
    return page.evaluate(
        """async ([samples, endpoint, span]) => {
          const { Samples } = await import("./server/samples.js");
          const kept = new Samples();
          const sample = ([at, rate, p99]) => ({ at, endpoints: { "/a": {
            messages_in: rate, messages_out: 0, errors: 0, sessions: 1, handler_p99_s: p99, errors_total: 7 } } });
          kept.start(samples.map(sample), true);
          return kept.of(endpoint, span);
        }""",
        [samples, endpoint, span],
    )


def test_load_that_was_measured_at_two_distances_is_shown_in_even_steps(window, host_script):
    """Measured every second since a page is open, and every five before: as restless as it was, now and then."""
    with run_server(host_script) as server:
        page = window(f"{server.url}/_wsthreads/")
        coarse = [(at, 10, 0.002) for at in range(1000, 1100, 5)]
        restless = [(at, 20 if at % 2 else 0, 0.004 if at % 2 else 0.002) for at in range(1100, 1131)]
        shown = shown_samples(page, [*coarse, *restless])
        rates = [sample["messages_in"] for sample in shown]
        assert len(shown) < 30
        assert all(7 <= rate <= 13 for rate in rates), rates
        assert shown[-1]["at"] == 1130
        assert all(0.001 < sample["handler_p99_s"] <= 0.004 for sample in shown)
        assert {sample["errors_total"] for sample in shown} == {7}
        assert not any("slowest" in sample for sample in shown), "there is only one endpoint"
        assert len(shown_samples(page, restless)) == len(restless), "measured at one distance: nothing to even out"
        gap = shown_samples(page, [(1000, 1, None), (1100, 1, None), (1101, 3, None)])
        assert [sample["messages_in"] for sample in gap] == [1, 1, 3], "an absence is no coarse step"


def test_the_plot_of_all_endpoints_names_the_slowest_one(page_of, tmp_path):
    """And the table keeps the times of calls for a minute: a slow handler does not end one in each second."""
    (tmp_path / "fast.py").write_text("def on_message(session, message): session.send(message)\n")
    (tmp_path / "slow.py").write_text("import time\ndef on_message(session, message): time.sleep(0.2)\n")
    with run_server("fast.py", "slow.py", cwd=tmp_path) as server:
        page = page_of(server)
        for path in ("/ws/fast", "/ws/slow"):
            with connect(server.ws_url + path) as client:
                client.send("x")
        plot = page.locator("figure", has_text="Handler time")
        expect(plot.locator(".note")).to_have_text("of /ws/slow, the slowest")
        cell = row(page, "/ws/slow").locator("[data-label=p50]")
        expect(cell).to_have_text(re.compile(r"\d m?s$"))
        page.wait_for_timeout(2500)
        expect(cell).to_have_text(re.compile(r"\d m?s$"))


def test_a_single_sample_is_drawn(window, host_script):
    with run_server(host_script) as server:
        page = window(f"{server.url}/_wsthreads/")
        width = page.evaluate("""async () => {
          const { Plot } = await import("./server/plot.js");
          const series = [{ name: "", of: ({ n }) => n }];
          const plot = new Plot({ title: "n", series, format: String, smallest: 1 }, () => {});
          document.body.append(plot.element);
          plot.resize(400);
          plot.show([{ at: 1000, n: 1 }], 60, null);
          return plot.lines[0].getBBox().width;
        }""")
        assert width >= 3


def test_the_axis_spans_the_time_that_is_chosen(page_of, host_script, guests):
    with run_server(host_script) as server:
        guests(server, "user=ann")
        page = page_of(server)
        chosen = page.get_by_role("combobox", name="Time shown")
        expect(chosen).to_have_value("60")  # it has just started
        slider = page.get_by_role("slider").first
        expect(slider).to_have_attribute("aria-valuemin", "-60")
        chosen.select_option("600")
        expect(slider).to_have_attribute("aria-valuemin", "-600")
        expect(chosen).to_have_value("600")  # still, when the next samples have come
        expect(page.locator("#endpoints td.number").first).to_have_text("1")
        expect(chosen).to_have_value("600")


def test_without_anybody_there_is_a_hint(page_of, host_script, guests):
    with run_server(host_script) as server:
        page = page_of(server)
        expect(page.locator("#no-load")).to_contain_text("No client was connected in this time")
        guests(server, "user=ann")
        expect(page.locator("#no-load")).to_be_hidden()
        expect(page.locator("#plots")).to_be_visible()


def test_errors_are_counted_from_the_start_and_those_nobody_saw_are_on_the_tab(page_of, host_script, guests):
    with run_server(host_script) as server:
        ann, bob = guests(server, "user=ann", "user=bob")
        for guest in (ann, bob, ann):
            guest.send("throw")
        server.wait_for("TypeError", times=3)
        page = page_of(server)  # which comes later
        expect(page.locator("#endpoints td.number.bad")).to_have_text("3")
        expect(page.locator(".plot", has_text="Errors")).to_contain_text("3 since the start")
        expect(page.locator("#unseen")).to_have_text("3")
        expect(page.locator("#latest")).to_be_hidden()  # that is for news
        tab(page, "Console").click()
        expect(page.locator("#unseen")).to_be_hidden()


def test_errors_that_repeat_are_one_line_of_the_console(page_of, host_script, guests):
    with run_server(host_script) as server:
        ann, bob = guests(server, "user=ann", "user=bob")
        page = page_of(server, "Console")
        errors = page.locator("#console-lines li.error")
        ann.send("throw")
        expect(errors).to_have_count(1)
        errors.locator("summary").click()
        for count, guest in enumerate((bob, ann, bob), start=2):
            guest.send("log info")
            guest.send("throw")
            # Before the next one: what two clients send at about the same time may be handled in any order.
            expect(errors.locator(".times")).to_have_text(f"×{count}")
        expect(errors).to_have_count(1)
        expect(errors.locator(".stack")).to_be_visible()  # it was unfolded
        expect(page.locator("#console-lines li").last).to_have_class("error")  # in the place of the last one
        expect(page.locator("#console-count")).to_have_text("7 lines")
        session = errors.get_by_role("button", name="session ")
        last = session.text_content()
        session.click()
        expect(page.locator("#session h2")).to_have_text("bob")
        expect(page.locator("#session")).to_contain_text(last.removeprefix("session "))


def test_places_in_the_console_stay_in_their_column(page_of, host_script, guests):
    with run_server(host_script) as server:
        [ann] = guests(server, "user=ann")
        page = page_of(server, "Console")
        ann.send("log info")
        ann.send("throw")
        places = page.locator("#console-lines .from")
        expect(places).to_have_count(2)
        boxes = [place.bounding_box() for place in places.all()]
        assert boxes[0]["x"] == boxes[1]["x"]
        rows = [line.bounding_box() for line in page.locator("#console-lines li").all()]
        assert all(0 <= box["y"] - line["y"] < 12 for box, line in zip(boxes, rows, strict=True)), "on each first line"


LONG_NAME = "somebody-whose-name-has-no-end-" * 3


def test_a_name_of_several_lines_leaves_the_other_cells_at_the_first(page_of, host_script, guests):
    with run_server(host_script) as server:
        guests(server, f"user={LONG_NAME}")
        page = page_of(server, "Sessions", viewport={"width": 900, "height": 700})
        cells = row(page, LONG_NAME).locator("th button, td.number")
        expect(cells.nth(1)).not_to_be_empty()
        texts = cells.evaluate_all("""(cells) => cells.map((cell) => {
          const range = document.createRange();
          range.selectNodeContents(cell);
          return [...range.getClientRects()].map(({ top, bottom }) => [top, bottom]);
        })""")
        assert len(texts[0]) > 1, "the name is in one line"
        (top, bottom), others = texts[0][0], [lines[0] for lines in texts[1:]]
        assert all(top - 2 <= other[0] and other[1] <= bottom + 2 for other in others), texts


def test_on_a_phone_sessions_are_sorted_and_take_little_room(page_of, host_script, guests, picture):
    with run_server(host_script) as server:
        names = [f"guest-{n:02}" for n in range(48)]
        clients = guests(server, *[f"user={name}" for name in [*names, LONG_NAME, "last"]])
        clients[7].send("hello")
        page = page_of(server, "Sessions", **PHONE_390)
        rows = page.locator("#sessions-rows tr")
        expect(rows).to_have_count(50)
        expect(rows.first).to_contain_text("last")
        picture(page, "sessions-phone-50")
        assert page.evaluate("document.getElementById('sessions-rows').offsetHeight") < 4200
        columns = page.locator("#sessions-rows td:nth-child(7)").evaluate_all(
            "(cells) => cells.map((cell) => cell.getBoundingClientRect().x)"
        )
        assert len(set(columns)) == 1, "each figure has its column"
        assert has_no_sideways_scrolling(page)
        order = page.get_by_role("combobox", name="Order of the sessions")
        order.select_option("oldest")
        expect(rows.first).to_contain_text("guest-00")
        order.select_option("received, most")
        expect(rows.first).to_contain_text("guest-07")


def test_on_a_phone_the_head_keeps_its_rows_when_the_server_is_gone(page_of, host_script):
    with run_server(host_script, "--reload") as server:
        page = page_of(server, **PHONE_390)
        lines = page.locator("#process").evaluate("""(element) => {
          const range = document.createRange();
          range.selectNodeContents(element);
          return [...range.getClientRects()].map(({ width }) => width);
        }""")
        assert min(lines) > max(lines) / 2, "a word is alone on its line"
        height = page.locator("#top").bounding_box()["height"]
        server.process.kill()
        expect(page.locator("#state-text")).to_have_text("the server is unreachable")
        expect(page.locator("#retry")).to_be_visible()
        assert page.locator("#state").bounding_box()["height"] < 45, "it is one row"
        assert page.locator("#top").bounding_box()["height"] < height + 50
        assert has_no_sideways_scrolling(page)
