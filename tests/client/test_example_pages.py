"""The pages of the examples game, poll, cursors and accounts in a real browser, over one process and over three."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import PHONE, button, expect, field, has_no_sideways_scrolling, low_contrasts
from tests.programs import EXAMPLES, ServerProgram, run_server, wait_until
from tests.redis_server import RedisServer

PHONE_390 = {**PHONE, "viewport": {"width": 390, "height": 780}}
SIZES: dict[str, dict[str, Any]] = {"wide": {"viewport": {"width": 1100, "height": 760}}, "phone": PHONE_390}
PAGES = ("--static", EXAMPLES / "public", "--serve-client")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProgram]:
    """One process for all tests that break nothing; each has a room of its own."""
    scripts = [EXAMPLES / f"{name}.js" for name in ("game", "poll", "cursors", "accounts")]
    options = [*PAGES, "--presence-grace-s", "1"]
    with run_server(*scripts, *options, env={"STATE_DIRECTORY": str(tmp_path_factory.mktemp("accounts"))}) as server:
        yield server
    assert "Traceback" not in server.log
    assert " failed" not in server.log


def play(page: Any, name: str, room: str) -> None:
    field(page, "Your name").fill(name)
    field(page, "Room").fill(room)
    button(page, "Play").click()
    expect(seats(page).filter(has_text=f"{name} (you)")).to_have_count(1)


def seats(page: Any) -> Any:
    return page.get_by_role("list", name="Players").get_by_role("listitem")


def place(page: Any, name: str) -> tuple[float, float]:
    """Where the player is shown."""
    shown = page.locator(".figure", has_text=name).get_attribute("transform")
    x, y = re.findall(r"[\d.]+", shown)
    return float(x), float(y)


def updates(page: Any) -> int:
    """How many states a second the page says that it gets."""
    return int(page.locator("#feed").inner_text().split()[0])


# The game


def test_players_see_each_other_move_by_keys_and_by_touch(window: Callable[..., Any], server: ServerProgram) -> None:
    ann, bob = window(f"{server.url}/game/"), window(f"{server.url}/game/", **PHONE_390)
    play(ann, "ann", "moves")
    play(bob, "bob", "moves")
    expect(seats(ann)).to_have_text([re.compile("ann .you."), re.compile("bob"), "free", "free"])
    ann.keyboard.down("ArrowRight")
    ann.keyboard.down("KeyS")
    for page in ann, bob:
        wait_until(lambda page=page: place(page, "ann") == (578, 578), "ann in the corner")
    ann.keyboard.up("ArrowRight")
    ann.keyboard.up("KeyS")
    box = bob.locator("#field").bounding_box()
    bob.mouse.move(box["x"] + box["width"] / 6, box["y"] + box["height"] / 6)
    bob.mouse.down()
    wait_until(lambda: max(abs(part - 100) for part in place(ann, "bob")) < 15, "bob where the finger is")
    bob.mouse.up()


def test_the_fifth_watches_until_a_seat_is_free(window: Callable[..., Any], server: ServerProgram) -> None:
    pages = [window(f"{server.url}/game/") for _ in range(4)]
    for name, page in zip(("ann", "bob", "cid", "dan"), pages, strict=True):
        play(page, name, "full")
    eve = window(f"{server.url}/game/?user=eve&room=full")
    button(eve, "Play").click()
    expect(seats(eve)).to_have_text([re.compile(name) for name in ("ann", "bob", "cid", "dan")])
    button(pages[1], "Leave").click()
    expect(seats(eve).nth(1)).to_contain_text("bob (away)")
    expect(seats(eve).nth(1)).to_contain_text("eve (you)", timeout=30_000)  # after ten seconds


def test_a_reload_comes_back_to_the_seat(window: Callable[..., Any], server: ServerProgram) -> None:
    ann, bob = window(f"{server.url}/game/"), window(f"{server.url}/game/")
    play(ann, "ann", "reload")
    play(bob, "bob", "reload")
    ann.reload()
    expect(seats(ann)).to_have_text([re.compile("ann .you."), re.compile("bob"), "free", "free"])
    wait_until(lambda: 10 <= updates(ann) <= 22, "20 updates a second")


def test_the_pages_can_be_read_on_any_screen(
    window: Callable[..., Any], server: ServerProgram, picture: Callable[..., None]
) -> None:
    other = window(f"{server.url}/game/?user=bob&room=look")
    button(other, "Play").click()
    for theme in ("light", "dark"):
        for width, options in SIZES.items():
            page = window(f"{server.url}/game/?user=ann&room=look", color_scheme=theme, **options)
            looks_right(page)
            picture(page, f"game-entrance-{width}-{theme}")
            button(page, "Play").click()
            expect(page.locator(".figure")).to_have_count(2)
            looks_right(page)
            assert has_no_scrolling(page), "the field is not whole"
            picture(page, f"game-{width}-{theme}")
            box = page.locator("#field").bounding_box()
            page.context.set_offline(True)
            expect(page.locator("#status")).to_be_visible()  # no state comes
            looks_right(page)
            assert has_no_scrolling(page), "the field is not whole beside the status"
            assert page.locator("#field").bounding_box() == box, "the field has moved"
            picture(page, f"game-status-{width}-{theme}")
            page.context.set_offline(False)
            page.goto(f"{server.url}/poll/?user=ann&room=look")
            expect(page.locator("#total")).to_have_text(re.compile("votes?$"))
            page.locator(".choice").first.click()
            expect(page.locator("#total")).to_have_text("1 vote")
            looks_right(page)
            picture(page, f"poll-{width}-{theme}")
            page.goto(f"{server.url}/cursors/?user=ann&room=look")
            expect(page.locator("#people")).to_have_text("You are ann, 1 here")
            looks_right(page)
            picture(page, f"cursors-{width}-{theme}")
            page.goto(f"{server.url}/accounts/")
            looks_right(page)
            expect(field(page, "Name")).to_be_focused()
            assert page.locator("form.card").bounding_box()["height"] < 400
            picture(page, f"accounts-entrance-{width}-{theme}")
            sign_up(page, f"look_{width}_{theme}")
            say(page, "hello")
            looks_right(page)
            picture(page, f"accounts-{width}-{theme}")
            page.context.close()


def has_no_scrolling(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollHeight <= innerHeight"))


def looks_right(page: Any) -> None:
    assert has_no_sideways_scrolling(page)
    assert low_contrasts(page) == []


# The poll and the cursors


def test_a_poll_counts_each_browser_once(window: Callable[..., Any], server: ServerProgram) -> None:
    ann, bob = window(f"{server.url}/poll/?room=votes"), window(f"{server.url}/poll/?room=votes")
    for page in ann, bob:
        expect(page.locator("#total")).to_have_text("0 votes")
    for choice in ("Soup", "Pizza"):
        ann.locator(".choice", has_text=choice).click()
    bob.locator(".choice", has_text="Pizza").click()
    for page in ann, bob:
        expect(page.locator("#total")).to_have_text("2 votes")
        expect(page.locator(".count")).to_have_text(["0", "0", "2"])
        expect(page.locator('.choice[aria-pressed="true"]')).to_contain_text("Pizza")
    ann.reload()
    expect(ann.locator('.choice[aria-pressed="true"]')).to_contain_text("Pizza")


def test_cursors_are_seen_until_their_user_leaves(window: Callable[..., Any], server: ServerProgram) -> None:
    ann, bob = (window(f"{server.url}/cursors/?room=points&user={name}") for name in ("ann", "bob"))
    for page in ann, bob:
        expect(page.locator("#people")).to_contain_text("2 here")
    box = ann.locator("#board").bounding_box()
    ann.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    cursor = bob.locator(".cursor", has_text="ann")
    expect(cursor).to_have_attribute("style", re.compile("left: 50%; top: 25%"))
    expect(ann.locator(".cursor")).to_have_count(0)
    ann.close()
    expect(cursor).to_have_count(0)  # after presence_grace_s


# A lost network


def test_with_resume_s_pages_go_on_after_a_lost_network_and_say_so(window: Callable[..., Any]) -> None:
    lines = {"game": ("#status", ""), "poll": ("#total", "0 votes")}
    with run_server(*(EXAMPLES / f"{name}.js" for name in lines), *PAGES, "--resume-s", "60") as server:
        for name, (place, text) in lines.items():
            page = window(f"{server.url}/{name}/?user=ann&room=away")
            if name == "game":
                button(page, "Play").click()
                expect(seats(page).filter(has_text="ann (you)")).to_have_count(1)
            expect(page.locator(place)).to_have_text(text)
            page.context.set_offline(True)
            page.context.set_offline(False)
            server.wait_for(f"resumed on /ws/{name}")
            expect(page.locator(place)).to_have_text(text)


# Over three processes


def test_a_game_over_three_processes_goes_on_when_its_owner_is_killed(
    window: Callable[..., Any], picture: Callable[..., None]
) -> None:
    with RedisServer() as redis, ExitStack() as stack:
        arguments = (EXAMPLES / "game.js", *PAGES, "--redis", redis.url)
        first, second, third = (stack.enter_context(run_server(*arguments)) for _ in range(3))
        pages = {}
        for name, server, options in (("ann", first, {}), ("bob", second, PHONE_390), ("cid", third, {})):
            pages[name] = page = window(
                f"{server.url}/game/", color_scheme="dark" if name == "bob" else "light", **options
            )
            play(page, name, "three")
        ann, bob, cid = pages.values()
        for page in pages.values():
            expect(seats(page)).to_have_text([re.compile("ann"), re.compile("bob"), re.compile("cid"), "free"])
            wait_until(lambda page=page: 10 <= updates(page) <= 22, "20 updates a second")
        owner = bob.locator("#feed").inner_text().split()[-1]
        assert cid.locator("#feed").inner_text().split()[-1] == owner
        bob.keyboard.down("ArrowLeft")
        first.process.send_signal(signal.SIGKILL)  # the owner: ann was the first player
        expect(ann.locator("#status")).to_contain_text("The connection was lost.")
        picture(ann, "game-lost")
        for page in bob, cid:
            expect(page.locator("#feed")).not_to_contain_text(owner)
            wait_until(lambda page=page: 10 <= updates(page) <= 22, "20 updates a second")
            wait_until(lambda page=page: place(page, "bob")[0] == 22, "bob at the edge")
        assert cid.locator("#feed").inner_text().split()[-1] == bob.locator("#feed").inner_text().split()[-1]
        stack.enter_context(run_server(*arguments, port=first.port))
        expect(seats(ann).first).to_have_text(re.compile(r"ann \(you\)"))
        wait_until(lambda: 10 <= updates(ann) <= 22, "20 updates a second")
        expect(seats(cid)).to_have_text([re.compile(r"ann\d"), re.compile(r"bob\d"), re.compile("cid"), "free"])
        for server in second, third:
            assert server.failures() == []


# Accounts


def sign_up(page: Any, name: str) -> None:
    field(page, "Name").fill(name)
    field(page, "Password").fill("a long password")
    button(page, "Make an account").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(field(page, "Message")).to_be_focused()


def say(page: Any, text: str) -> None:
    field(page, "Message").fill(text)
    button(page, "Send").click()
    expect(page.locator("#messages li").last).to_contain_text(text)


def test_users_of_the_chat_with_accounts_log_in_and_out(window: Callable[..., Any], server: ServerProgram) -> None:
    ann, bob = (window(f"{server.url}/accounts/") for _ in range(2))
    sign_up(ann, "ann")
    say(ann, "from ann")
    sign_up(bob, "bob")
    expect(bob.locator("#messages li").last).to_contain_text("from ann")
    say(bob, "from bob")
    expect(ann.locator("#messages li").last).to_contain_text("from bob")
    ann.reload()
    expect(ann.locator("#messages li").last).to_contain_text("from bob")
    for number in range(25):
        say(bob, f"line {number}")
    expect(ann.locator("#messages li").last).to_be_in_viewport()
    ann.locator("#messages").evaluate("list => { list.scrollTop = 0; }")  # ann reads what was said before
    say(bob, "the last line")
    expect(ann.locator("#messages li").last).to_contain_text("the last line")
    assert ann.locator("#messages").evaluate("list => list.scrollTop") == 0
    button(ann, "Log out").click()
    expect(ann.get_by_role("alert")).to_have_text("logged out")
    field(ann, "Name").fill("ann")
    field(ann, "Password").fill("a wrong password")
    button(ann, "Log in").click()
    expect(ann.get_by_role("alert")).to_have_text("name or password is wrong")


def test_both_views_say_that_the_server_is_away_and_what_waits(
    window: Callable[..., Any], tmp_path: Path, picture: Callable[..., None]
) -> None:
    arguments, env = (EXAMPLES / "accounts.js", *PAGES), {"STATE_DIRECTORY": str(tmp_path)}
    looks = {
        (theme, kind): {"color_scheme": theme, **size} for theme in ("light", "dark") for kind, size in SIZES.items()
    }
    with ExitStack() as stack:
        server = stack.enter_context(run_server(*arguments, env=env))
        guests = {look: window(f"{server.url}/accounts/", **options) for look, options in looks.items()}
        members = {look: window(f"{server.url}/accounts/", **options) for look, options in looks.items()}
        for (theme, kind), page in members.items():
            sign_up(page, f"{theme}_{kind}")
            for number in range(12):
                say(page, f"{theme} {kind} {number}")
        server.end()
        for look, page in guests.items():
            expect(page.get_by_role("alert")).to_have_text("The connection was lost. Trying again …")
            looks_right(page)
            picture(page, "accounts-away-{}-{}".format(*look))
        for look, page in members.items():
            last = page.locator("#messages li").last
            expect(page.get_by_role("status")).to_have_text("The connection was lost. Trying again …")
            box, view = last.bounding_box(), page.locator("#messages").bounding_box()
            assert box["y"] + box["height"] <= view["y"] + view["height"] + 1, "the last message is cut"
            field(page, "Message").fill("typed meanwhile")
            button(page, "Send").click()
            expect(page.get_by_role("status")).to_contain_text("1 message waits.")
            looks_right(page)
            picture(page, "accounts-lost-{}-{}".format(*look))
        stack.enter_context(run_server(*arguments, env=env, port=server.port))
        for page in guests.values():
            expect(page.locator("#problem")).to_have_text("")
        for page in members.values():
            expect(page.locator("#messages li", has_text="typed meanwhile")).to_have_count(len(members))
            expect(page.locator("#state")).to_have_text("")


def test_a_log_out_elsewhere_ends_no_other_user_of_a_browser(window: Callable[..., Any], server: ServerProgram) -> None:
    phone, tab = (window(f"{server.url}/accounts/") for _ in range(2))
    sign_up(phone, "ann_of_two")
    field(tab, "Name").fill("ann_of_two")
    field(tab, "Password").fill("a long password")
    button(tab, "Log in").click()
    expect(tab.get_by_role("heading", name="ann_of_two")).to_be_visible()
    other = tab.context.new_page()  # a tab that has been open since before ann's login
    other.goto(f"{server.url}/accounts/")
    other.evaluate("localStorage.removeItem('login')")
    other.reload()
    sign_up(other, "bob_of_two")
    button(phone, "Log out").click()
    expect(tab.get_by_role("heading", name="bob_of_two")).to_be_visible()
    other.reload()
    expect(other.get_by_role("heading", name="bob_of_two")).to_be_visible()
