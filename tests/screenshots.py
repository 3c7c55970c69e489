"""Makes the pictures in README.rst and docs/: ``python -m tests.screenshots [folder]``, by default examples/pictures.

It serves the chat example on a free port, has a dozen people chat in it, and takes pictures of the page about the
server (light and dark, wide and narrow) and of the chat itself, in Chromium. Takes two minutes; every wait is bounded.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.browsing import button, expect, field, started_browser
from tests.programs import EXAMPLES, ServerProgram, connect, run_server

FOLDER = EXAMPLES / "pictures"

#: What a picture may weigh in the repository.
MAX_BYTES = 150_000

WIDE = {"viewport": {"width": 1200, "height": 680}}
NARROW = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

#: For so long people chat before pictures are taken, so that the plots have something to show.
CHAT_S = 60.0

PEOPLE = {
    "chat": ["carol", "dave", "erin", "frank", "grace"],
    "garden": ["heidi", "ivan", "judy", "olivia"],
    "kitchen": ["peggy", "sybil", "trent"],
}
LINES = [
    "Good morning",
    "Is anybody here?",
    "The tomatoes are ripe",
    "Tea is ready",
    "See you at noon",
    "On my way",
    "Nice!",
]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        _copy_handlers(Path(scratch))
        arguments = ["chat.js", "rooms.js", "game.js", "--history-messages", "1000", "--serve-client", "--reload"]
        arguments += ["--static", EXAMPLES / "public"]
        with (
            run_server(*arguments, cwd=scratch) as server,
            people_chatting(server) as talked,
            started_browser() as browser,
        ):
            take_client(browser, server, folder)
            take_chat(browser, server, folder)
            take_game(browser, server, folder)
            take_held(browser, server, folder)
            if not talked.wait(CHAT_S * 10):
                sys.exit("nobody has talked")
            take_console(browser, server, folder)
            for theme in ("light", "dark"):
                take_overview(browser, server, folder, theme)
            take_sessions(browser, server, folder)
            take_room(browser, server, folder)
            take_failed_reload(browser, server, folder, Path(scratch) / "chat.js")
    for picture in sorted(folder.glob("*.png")):
        size = picture.stat().st_size
        print(f"{picture.name:32} {size / 1000:6.1f} kB")
        if size > MAX_BYTES:
            sys.exit(f"{picture.name} is too big for the repository: {size} bytes, and {MAX_BYTES} are allowed")


def _copy_handlers(folder: Path) -> None:
    """The examples, with a line in rooms.js that writes to the console, and one that fails at times."""
    for name in ("chat.js", "rooms.js", "game.js"):
        shutil.copy(EXAMPLES / name, folder)
    rooms = folder / "rooms.js"
    source = rooms.read_text()
    join = '  session.setAttribute("room", room);\n'
    log = (
        "  const members = room.members();\n"
        '  if (members > 3) console.warn("a full room", { room: room.getName(), members });\n'
    )
    parse = "  const { type, to, text, typing } = JSON.parse(message);\n"
    fail = '  if (text?.startsWith("/")) throw new RangeError(`no such command: ${text}`);\n'
    for line, more in ((join, log), (parse, fail)):
        assert line in source
        source = source.replace(line, line + more)
    rooms.write_text(source)


@contextmanager
def people_chatting(server: ServerProgram) -> Iterator[threading.Event]:
    """People who talk to the end of the block; the event is set when they have talked for a while."""
    done, talked = threading.Event(), threading.Event()
    with ExitStack() as stack:
        clients = []
        for room, names in PEOPLE.items():
            path = "/ws/chat?" if room == "chat" else f"/ws/rooms?room={room}&"
            for name in names:
                client = stack.enter_context(connect(f"{server.ws_url}{path}user={name}", user_agent_header="people"))
                clients.append((client, room))
        talkers = [
            threading.Thread(target=_talk, args=(clients, done, talked), name="talk"),
            *(threading.Thread(target=_listen, args=(client,), name="listen", daemon=True) for client, _ in clients),
        ]
        for thread in talkers:
            thread.start()
        try:
            yield talked
        finally:
            done.set()
            talkers[0].join()


def _talk(clients: list[tuple[Any, str]], done: threading.Event, talked: threading.Event) -> None:
    chance = random.Random(7)
    waited_s = 0.0
    while not done.is_set():
        pause_s = chance.choice([0.02, 0.05, 0.1, 0.3])
        done.wait(pause_s)
        waited_s += pause_s
        client, room = chance.choice(clients)
        line = chance.choice(LINES)
        client.send(line if room == "chat" else message(line))
        if waited_s > CHAT_S and not talked.is_set():
            clients[-1][0].send(message("/dance"))
            talked.set()


def message(text: str) -> str:
    """What rooms.js understands. chat.js receives plain text."""
    return json.dumps({"type": "message", "text": text})


def _listen(client: Any) -> None:
    for _ in client:
        pass


def take_client(browser: Any, server: ServerProgram, folder: Path) -> None:
    page = open_page(
        browser, f"{server.url}/_wsthreads/#/client", "light", {"viewport": {"width": 1112, "height": 660}}
    )
    expect(page.locator("#state-text")).to_have_text("live")
    page.get_by_role("combobox", name="Endpoint", exact=True).select_option("/ws/rooms")
    field(page, "More parameters").fill("room=porch")
    for user in ("alice", "bob", "mallory"):
        field(page, "User").fill(user)
        button(page, "Connect").click()
        expect(page.locator(".pane").last).to_contain_text("welcome")
    for user, text in (("bob", "Tea?"), ("alice", "Oh yes")):
        draft = field(page, f"Message from {user}")
        draft.fill(message(text))
        draft.press("Enter")
        expect(page.locator(".pane").last).to_contain_text(text)
    page.locator(".pane").last.locator(".in summary").last.click()
    page.locator(".frames").last.evaluate("(list) => { list.scrollTop = list.scrollHeight; }")
    shoot(page, folder, "client-light")
    page.context.close()


def take_overview(browser: Any, server: ServerProgram, folder: Path, theme: str) -> None:
    for name, options in ((f"overview-{theme}", WIDE), (f"overview-phone-{theme}", NARROW)):
        page = open_page(browser, f"{server.url}/_wsthreads/", theme, options)
        expect(page.locator(".plot .line").first).to_have_attribute("d", re.compile(r"(?:L[\d. ]+){8}"))
        expect(page.locator("#endpoints .number").first).to_have_text("5")
        shoot(page, folder, name)
        page.context.close()


def take_sessions(browser: Any, server: ServerProgram, folder: Path) -> None:
    page = open_page(browser, f"{server.url}/_wsthreads/#/sessions", "dark", WIDE)
    page.get_by_role("button", name="judy").click()
    expect(page.locator("#session")).to_contain_text("garden")
    for ping in page.locator("#sessions-rows td:nth-of-type(8)").all():
        expect(ping).to_have_text(re.compile("s$"))
    shoot(page, folder, "sessions-dark")
    page.context.close()


def take_room(browser: Any, server: ServerProgram, folder: Path) -> None:
    page = open_page(browser, f"{server.url}/_wsthreads/#/rooms", "light", {"viewport": {"width": 1200, "height": 560}})
    page.locator("#rooms-rows").get_by_role("button", name="garden").click()
    person = page.locator(".persons li", has_text="judy")
    person.locator("summary").click()
    expect(person).to_contain_text("typing")
    shoot(page, folder, "room-light")
    page.context.close()


def take_console(browser: Any, server: ServerProgram, folder: Path) -> None:
    page = open_page(
        browser, f"{server.url}/_wsthreads/#/console", "light", {"viewport": {"width": 1200, "height": 290}}
    )
    page.locator("#console-lines .error summary").click()
    shoot(page, folder, "console-light")
    page.context.close()


def take_failed_reload(browser: Any, server: ServerProgram, folder: Path, script: Path) -> None:
    page = open_page(browser, f"{server.url}/_wsthreads/", "light", {"viewport": {"width": 1200, "height": 330}})
    expect(page.locator("#state-text")).to_have_text("live")
    source = script.read_text()
    script.write_text(source.replace('getParameter("user") ||', 'getParameter("user" ||'))
    expect(page.locator(".failure")).to_be_visible()
    shoot(page, folder, "failed-reload-light")
    page.context.close()


def take_chat(browser: Any, server: ServerProgram, folder: Path) -> None:
    for theme, options in (("light", {"viewport": {"width": 900, "height": 640}}), ("dark", NARROW)):
        page = open_page(browser, f"{server.url}/?room=tea&user=alice", theme, options)
        button(page, "Join").click()
        expect(page.get_by_role("log")).to_contain_text("You are in")
        with (
            connect(f"{server.ws_url}/ws/rooms?room=tea&user=bob") as bob,
            connect(f"{server.ws_url}/ws/rooms?room=tea&user=carol") as carol,
        ):
            for name in ("bob", "carol"):
                expect(page.get_by_role("log")).to_contain_text(f"{name} has come in")
            for mine, his in (("Hello Bob", "Hello Alice, is there tea?"), ("In five minutes", "On my way")):
                field(page, "Message").fill(mine)
                field(page, "Message").press("Enter")
                expect(page.locator(".message .text").last).to_have_text(mine)
                bob.send(message(his))
                expect(page.locator(".message .text").last).to_have_text(his)
            bob.send(json.dumps({"type": "private", "to": "alice", "text": "It is Carol's birthday"}))
            expect(page.locator(".private .text")).to_have_text("It is Carol's birthday")
            carol.send(json.dumps({"type": "typing", "typing": True}))
            expect(page.locator("#typing")).to_have_text("carol is typing…")
            shoot(page, folder, "chat" if theme == "light" else f"chat-phone-{theme}")
        page.context.close()


def take_game(browser: Any, server: ServerProgram, folder: Path) -> None:
    page = open_page(
        browser, f"{server.url}/game/?room=tea&user=alice", "light", {"viewport": {"width": 900, "height": 600}}
    )
    button(page, "Play").click()
    expect(page.locator(".figure.mine")).to_have_count(1)
    with (
        connect(f"{server.ws_url}/ws/game?room=tea&user=bob") as bob,
        connect(f"{server.ws_url}/ws/game?room=tea&user=carol") as carol,
    ):
        expect(page.locator(".figure")).to_have_count(3)
        for client, x, y in ((bob, -1, 0), (carol, 1, -1)):
            client.send(json.dumps({"x": x, "y": y}))
        expect(page.locator("#feed")).to_have_text(re.compile("^20 "))
        shoot(page, folder, "game")
    page.context.close()


def take_held(browser: Any, server: ServerProgram, folder: Path) -> None:
    """What the room of a game holds."""
    page = open_page(browser, f"{server.url}/_wsthreads/#/rooms", "light", {"viewport": {"width": 1200, "height": 700}})
    with ExitStack() as stack:
        for user in ("bob", "carol"):
            client = stack.enter_context(connect(f"{server.ws_url}/ws/game?room=tea&user={user}"))
            client.send(json.dumps({"x": 1, "y": 0}))
        room = f"{server.ws_url}/ws/rooms?room=tea&user="
        alice = stack.enter_context(connect(f"{room}alice"))
        for text in LINES:
            alice.send(message(text))
        page.locator("#rooms-rows tr", has_text="/ws/game").get_by_role("button", name="tea").click()
        attributes = page.locator(".holds", has=page.get_by_role("heading", name="Attributes"))
        attributes.locator("summary").first.click()
        expect(page.locator("#room dl")).to_contain_text("Last tick late by")
        shoot(page, folder, "room-holds-light")
    page.context.close()


def open_page(browser: Any, url: str, theme: str, options: dict[str, Any]) -> Any:
    context = browser.new_context(color_scheme=theme, reduced_motion="reduce", **options)
    page = context.new_page()
    page.goto(url)
    return page


def shoot(page: Any, folder: Path, name: str) -> None:
    page.mouse.move(0, 0)
    (folder / f"{name}.png").write_bytes(squeezed(page.screenshot(caret="hide")))


def squeezed(png: bytes) -> bytes:
    """The same picture, compressed as well as zlib can: Chromium compresses fast."""
    pixels, start, end, at = b"", b"", b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, chunk = png[at + 4 : at + 8], png[at : at + 12 + length]
        if kind == b"IDAT":
            pixels += chunk[8:-4]
        elif pixels:
            end += chunk
        else:
            start += chunk
        at += len(chunk)
    data = b"IDAT" + zlib.compress(zlib.decompress(pixels), 9)
    return png[:8] + start + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data)) + end


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
