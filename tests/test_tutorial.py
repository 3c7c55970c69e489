"""examples/tutorial/README.rst, followed to the letter: each command is run, each change made, and what it shows seen.

The comments in it are for this test: ``.. file:`` names the file of the change below, ``.. write:`` and ``.. append:``
that of a whole text, and ``.. step:`` is what somebody does in a browser, one of `Reader`'s methods.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docutils.core
import pytest

from tests.browsing import expect, field
from tests.ports import free_port
from tests.programs import EXAMPLES, PROGRAM_S, ROOT, Program
from tests.redis_server import RedisServer
from tests.test_troubleshooting import nginx

pytestmark = pytest.mark.long

TUTORIAL = EXAMPLES / "tutorial"
TEXT = (TUTORIAL / "README.rst").read_text()

#: What a test environment has done already.
DONE = re.compile(r"pip install|python3 -m venv|\. venv/bin/activate")
SERVERS = ("wsthreads run", "flask run", "gunicorn")


def parts() -> Iterator[tuple[str, str, str]]:
    """(kind, name, text) of each comment for us, and of each block of code, in order."""
    form = r"^\.\. (?P<kind>code-block::|file:|write:|append:|step:) (?P<name>.*)\n(?P<text>(?:\n|    .*\n)*)"
    for part in re.finditer(form, TEXT, re.MULTILINE):
        yield part["kind"].rstrip(":"), part["name"], textwrap.dedent(part["text"]).strip("\n")


def pattern(shown: str) -> str:
    """The regular expression of a line in which … stands for anything."""
    return ".*".join(map(re.escape, shown.split("…")))


def changed(text: str, diff: str) -> str:
    """A file's text with a change, whose lines are indented as those around them are."""
    old = [line[2:] for line in diff.splitlines() if line[:1] != "+"]
    new = [line[2:] for line in diff.splitlines() if line[:1] != "-"]
    lines = text.splitlines()
    wanted = [line.strip() for line in old]
    (at,) = [n for n in range(len(lines)) if [line.strip() for line in lines[n : n + len(old)]] == wanted]
    margin = " " * (len(lines[at]) - len(lines[at].lstrip()) - (len(old[0]) - len(old[0].lstrip())))
    lines[at : at + len(old)] = [(margin + line).rstrip() for line in new]
    return "\n".join(lines) + "\n"


class Reader:
    """Somebody who follows the tutorial in a folder, with ports of their own."""

    def __init__(self, folder: Path, window: Any, redis: str) -> None:
        self.folder = folder
        self._open = window
        self._redis = redis
        self._ports = {"5000": str(free_port()), "8000": str(free_port())}
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "BIND": f"127.0.0.1:{self._ports['8000']}",
        }
        self._url = f"http://127.0.0.1:{self._ports['5000']}"
        self._server: Program | None = None
        self._seen = 0  # how much of the server's log has been looked at
        self._reloads = 0
        self._windows: dict[str, Any] = {}
        self._stack = ExitStack()

    def close(self) -> None:
        self._stack.close()

    def follow(self) -> None:
        file = how = ""
        for kind, name, text in parts():
            if kind in ("file", "write", "append"):
                how, file = kind, name
            elif kind == "step":
                getattr(self, re.sub(r"\W+", "_", name))()
            elif name == "console":
                self._type(text)
            elif name == "text":
                self._see(text)
            else:
                self._save(self.folder / file, how, text)

    def _save(self, path: Path, how: str, text: str) -> None:
        before = path.read_text() if how != "write" else ""
        path.write_text(changed(before, text) if how == "file" else f"{before}\n\n{text}\n".lstrip("\n"))
        if self._server is not None and path.suffix == ".js":  # look what --reload says before going on
            self._reloads += 1
            self._server.wait_for(r"lounge\.js (not )?reloaded", times=self._reloads)

    # The terminal

    def _type(self, text: str) -> None:
        if text.startswith("# "):
            return  # root's, on a machine of one's own
        for command, output in re.findall(r"^(?:\$ (.*(?:\\\n.*)*)|\^C)\n?((?:(?!\$ |\^C).*\n?)*)", text, re.MULTILINE):
            output = self._translated(output)
            if not command:
                self._stop(output)
            elif not DONE.search(command):
                self._run(self._translated(command), output)

    def _translated(self, text: str) -> str:
        for port, ours in self._ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{ours}")
        return text.replace("redis://localhost", self._redis)

    def _run(self, command: str, output: str) -> None:
        if command.startswith("cd "):
            self.folder /= command[3:]
        elif command.startswith("export "):
            done = self._bash(f"{command}; env -0")
            self._environment.update(pair.split("=", 1) for pair in done.rstrip("\0").split("\0"))
        elif command.startswith(SERVERS):
            is_gunicorn = command.startswith("gunicorn")
            self._url = f"http://127.0.0.1:{self._ports['8000' if is_gunicorn else '5000']}"
            port = "" if is_gunicorn else f" --port {self._ports['5000']}"
            self._server = self._stack.enter_context(
                Program(["bash", "-c", f"exec {command}{port}"], cwd=self.folder, env=self._environment)
            )
            self._seen = 0
            self._see(output)
        elif not command.startswith("curl ") or shutil.which("curl"):
            self._compare(output.splitlines(), self._bash(command).splitlines())

    def _bash(self, command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=PROGRAM_S,
        ).stdout

    def _compare(self, shown: list[str], printed: list[str]) -> None:
        complete = "\n".join(pattern(line.rstrip()) for line in shown)
        found = "\n".join(line.rstrip() for line in printed)
        assert re.fullmatch(complete, found), f"shown:\n{complete}\nprinted:\n{found}"

    def _see(self, shown: str) -> None:
        """The server prints these lines, after what has been seen of it."""
        assert self._server is not None
        for line in filter(None, self._translated(shown).splitlines()):
            if line == "…":
                continue
            spaces = re.sub(r"(\\ )+", r"\\s+", pattern(line.strip()))
            found = self._server.wait_for(rf"(?s:.{{{self._seen}}}).*?{spaces}" if self._seen else spaces)
            self._seen = found.end()

    def _stop(self, shown: str) -> None:
        assert self._server is not None
        self._server.process.send_signal(signal.SIGINT)
        assert self._server.wait() == 0
        self._see(shown)
        assert "Traceback" not in self._server.log
        self._server = None
        self.the_pages_are_closed()  # else they look for their server to the end
        self._windows.clear()

    # The browser

    def _enter(self, user: str, query: str = "", *, is_in: bool = True) -> Any:
        self._windows[user] = page = self._open(f"{self._url}/?user={user}{query}")
        if is_in:
            expect(page.get_by_role("log")).to_contain_text(f"{user} has come in")
        return page

    def _say(self, user: str, text: str) -> None:
        field(self._windows[user], "Message").fill(text)
        self._windows[user].get_by_role("button", name="Send").click()

    def _hears(self, user: str, text: str) -> None:
        expect(self._windows[user].get_by_role("log")).to_contain_text(text)

    def ann_and_bob_talk_in_two_windows(self) -> None:
        self._enter("ann")
        self._enter("bob")
        self._say("ann", "hello, bob")
        self._hears("bob", "ann: hello, bob")
        self._hears("ann", "ann: hello, bob")

    def ann_and_bob_are_in_the_garden_eve_is_not(self) -> None:
        for user in ("ann", "bob"):
            self._enter(user, "&room=garden")
        eve = self._enter("eve")
        self._say("ann", "only for the garden")
        self._hears("bob", "ann: only for the garden")
        self._say("eve", "is anybody here?")
        self._hears("eve", "eve: is anybody here?")
        assert "garden" not in eve.get_by_role("log").inner_text()

    def a_newcomer_is_told_that_the_connection_was_lost(self) -> None:
        self._enter("dan", is_in=False)
        self._hears("dan", "The connection was lost; trying again.")

    def the_newcomer_is_in(self) -> None:
        self._windows["dan"].evaluate("dispatchEvent(new Event('online'))")  # not to wait for the next attempt
        self._hears("dan", "dan has come in")

    def the_page_works_at_port_8000(self) -> None:
        self.ann_and_bob_talk_in_two_windows()

    def a_chat_through_nginx(self) -> None:
        """With the lines of its file; nginx itself may be missing."""
        if shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin") is None:
            return
        site = (self.folder / "deploy" / "nginx.conf").read_text()
        lines = re.sub(r"#.*|proxy_pass .*", "", re.findall(r"location / \{(.*?)\}", site, re.DOTALL)[0])
        lines = lines.replace("$connection_upgrade", "upgrade")  # there is no map in this configuration
        with nginx(self.folder.parent, int(self._ports["8000"]), lines) as port:
            direct, self._url = self._url, f"http://127.0.0.1:{port}"
            self.ann_and_bob_talk_in_two_windows()
            self._url = direct

    def ann_hears_of_the_garden(self) -> None:
        for user in ("ann", "bob"):
            self._enter(user, "&room=garden")
        self._say("bob", "roses")
        self._hears("ann", "bob: roses")

    def the_pages_are_closed(self) -> None:
        for page in self._windows.values():
            page.close()

    def ann_hears_the_house(self) -> None:
        self._hears("ann", "the house: closing soon")


def files_in(folder: Path) -> set[Path]:
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in files if not {"__pycache__", ".pytest_cache"} & {*path.parts}}


def test_who_follows_it_has_the_files_beside_it(tmp_path: Path, window: Any, redis_server: RedisServer) -> None:
    reader = Reader(tmp_path, window, redis_server.url)
    try:
        reader.follow()
    finally:
        reader.close()
    made, kept = files_in(reader.folder), files_in(TUTORIAL)
    # These the command writes, as they are.
    deployed = ["lounge.service", "nginx.conf", "Containerfile", "Containerfile.dockerignore", "grafana.json"]
    written = {"wsthreads.d.ts", "gunicorn.conf.py", *(f"deploy/{name}" for name in deployed)}
    assert {str(path) for path in made ^ kept} == {"README.rst", *written}
    for path in made & kept:
        assert (reader.folder / path).read_text() == (TUTORIAL / path).read_text(), path


def test_it_is_valid_restructured_text() -> None:
    strict = {"halt_level": 2, "report_level": 2, "syntax_highlight": "none"}
    docutils.core.publish_doctree(TEXT, settings_overrides=strict)


@pytest.mark.parametrize(
    ("text", "diff", "new"),
    [
        ("{\n  a\n  b\n}\n", "  a\n- b\n+ c\n+   d", "{\n  a\n  c\n    d\n}\n"),
        ("    a\n", "- a\n+ b", "    b\n"),
    ],
)
def test_a_change_is_made_where_its_lines_are(text: str, diff: str, new: str) -> None:
    assert changed(text, diff) == new
