"""What counts as a change; `wsthreads run --reload` as a whole is in tests/cli/test_cli.py."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import PROGRAM_S
from wsthreads import WebSocketApp
from wsthreads.cli.reloader import Reloader
from wsthreads.cli.targets import Target, add_target


@pytest.mark.parametrize("fails", [False, True])
def test_a_change_that_comes_while_a_script_is_loaded_is_seen_the_next_time(tmp_path: Path, fails: bool) -> None:
    script = tmp_path / "echo.js"
    script.write_text("export function onMessage() {}")
    app = WebSocketApp()
    endpoint = app.add_script("/ws/echo", script)
    target = Target("/ws/echo", script)
    reloader = Reloader(app, lambda: [target], lambda: pytest.fail("restarted"), check_arguments=())
    reload, loads = endpoint.handler.reload, []  # type: ignore[attr-defined]

    def reload_and_save() -> None:
        loads.append(script.read_text())
        if len(loads) == 1:
            try:
                reload()
            finally:
                script.write_text("export function onOpen() {} // saved just after it was read")

    endpoint.handler.reload = reload_and_save  # type: ignore[attr-defined]
    try:
        script.write_text("export function (" if fails else "export function onClose() {}")
        for _ in range(3):
            reloader._look()
        assert len(loads) == 2
        assert loads[-1].endswith("saved just after it was read")
    finally:
        app.shutdown(2)


# What counts as a change, whatever the language


ECHO = {
    ".js": "import { text } from './_text.js';\nexport function onMessage(session) { session.send(text); }\n",
    ".py": "from _text import text\n\ndef on_message(session, message):\n    session.send(text)\n",
}
TEXT = {".js": "export const text = '%s';\n", ".py": "text = '%s'\n"}


class Watched:
    """A handler in a folder that a reloader looks at when it is told to; it knows of each swap or restart."""

    def __init__(self, file: Path) -> None:
        self.file, self.changes = file, 0
        self.app = WebSocketApp()
        self.target = Target("/ws/echo", file)
        handler: Any = add_target(self.app, self.target).handler
        self.reloader = Reloader(self.app, lambda: [self.target], self.count, check_arguments=[str(file)])
        if self.target.is_script:
            reload = handler.reload

            def reload_and_count() -> None:
                reload()
                self.count()

            handler.reload = reload_and_count

    def count(self) -> None:
        self.changes += 1

    def look(self) -> int:
        """The swaps and restarts until now."""
        self.reloader._look()
        return self.changes


@pytest.fixture(params=[".js", ".py"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Watched]]:
    """Serve a handler, and look for changes of it. At the end, nothing of it is left in `sys.modules`."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr("wsthreads.cli.reloader.CHECK_TIMEOUT_S", PROGRAM_S)  # a check starts a program
    before, watched = {*sys.modules}, []

    def start(file: Path) -> Watched:
        watched.append(Watched(file))
        return watched[-1]

    yield start
    for each in watched:
        each.app.shutdown(2)
    for name in {*sys.modules} - before:
        if not getattr(sys.modules[name], "__file__", None) or "_text" in name or "chat" in name:
            del sys.modules[name]


def release(folder: Path, suffix: str, text: str) -> Path:
    """A folder with a handler and what it imports; all files have the same size and time, whatever they say."""
    folder.mkdir()
    (folder / f"chat{suffix}").write_text(ECHO[suffix])
    (folder / f"_text{suffix}").write_text(TEXT[suffix] % text)
    for file in folder.iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return folder


def swap(link: Path, target: Path | str) -> None:
    """Have a symbolic link lead elsewhere, in one step, as deployments do."""
    (link.parent / "new").symlink_to(target)
    (link.parent / "new").rename(link)


def test_a_link_to_a_release_is_swapped(tmp_path: Path, suffix: str, watch: Callable[[Path], Watched]) -> None:
    current = tmp_path / "current"
    current.symlink_to(release(tmp_path / "one", suffix, "one"))
    watched = watch(current / f"chat{suffix}")
    assert watched.look() == 0
    swap(current, release(tmp_path / "two", suffix, "two"))
    assert watched.look() == 1


def test_a_volume_of_kubernetes_is_swapped(tmp_path: Path, suffix: str, watch: Callable[[Path], Watched]) -> None:
    """The files are links to ..data/, which is a link to the folder of a version."""
    release(tmp_path / "..1", suffix, "one")
    (tmp_path / "..data").symlink_to("..1")
    for name in (f"chat{suffix}", f"_text{suffix}"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    watched = watch(tmp_path / f"chat{suffix}")
    release(tmp_path / "..2", suffix, "two")
    swap(tmp_path / "..data", "..2")
    shutil.rmtree(tmp_path / "..1")
    assert watched.look() == 1
    release(tmp_path / "..3", suffix, "three")
    swap(tmp_path / "..data", "..3")
    shutil.rmtree(tmp_path / "..2")
    if suffix == ".js":  # Python has been told to restart
        assert watched.look() == 2


def test_a_link_to_an_import_is_swapped(tmp_path: Path, suffix: str, watch: Callable[[Path], Watched]) -> None:
    folder = release(tmp_path / "app", suffix, "old")
    imported = folder / f"_text{suffix}"
    imported.rename(folder / f"_text-1{suffix}")
    shutil.copy2(folder / f"_text-1{suffix}", folder / f"_text-2{suffix}")
    imported.symlink_to(f"_text-1{suffix}")
    watched = watch(folder / f"chat{suffix}")
    swap(imported, f"_text-2{suffix}")
    assert watched.look() == 1


@pytest.mark.parametrize("name", ["chat", "_text"])
@pytest.mark.parametrize("how", ["renamed over", "deleted and made again", "written in place", "older", "newer"])
def test_a_file_is_another_whatever_its_time_and_size(
    tmp_path: Path, suffix: str, watch: Callable[[Path], Watched], name: str, how: str
) -> None:
    folder = release(tmp_path / "app", suffix, "old")
    file = folder / f"{name}{suffix}"
    watched = watch(folder / f"chat{suffix}")
    time, text = 1_700_000_000, file.read_text().replace("old", "new")
    if how == "renamed over":
        other = tmp_path / "other"
        other.write_text(text)
        os.utime(other, (time, time))
        other.rename(file)
    elif how == "deleted and made again":
        file.unlink()
        assert watched.look() == 0
        file.write_text(text)
        os.utime(file, (time, time))
    else:
        file.write_text(text)
        time += {"older": -1000, "newer": 1000}.get(how, 0)
        os.utime(file, (time, time))
    assert watched.look() == 1
    if suffix == ".js":  # Python has been told to restart
        assert watched.look() == 1


@pytest.mark.parametrize("name", ["_more", "sub/_more"])
def test_a_missing_import_is_there_now(
    tmp_path: Path, suffix: str, watch: Callable[[Path], Watched], name: str
) -> None:
    folder = release(tmp_path / "app", suffix, "old")
    file = folder / f"chat{suffix}"
    watched = watch(file)
    statement = {".js": f"import './{name}.js';\n", ".py": f"import {name.replace('/', '.')}\n"}[suffix]
    file.write_text(statement + ECHO[suffix])
    assert watched.look() == 0  # it does not load
    assert watched.look() == 0
    missing = folder / f"{name}{suffix}"
    missing.parent.mkdir(exist_ok=True)
    missing.write_text("")
    assert watched.look() == 1


@pytest.mark.parametrize("name", ["chat", "_text"])
def test_a_file_that_stays_away_is_reported_once(
    tmp_path: Path, suffix: str, watch: Callable[[Path], Watched], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = release(tmp_path / "app", suffix, "old")
    file = folder / f"{name}{suffix}"
    watched = watch(folder / f"chat{suffix}")
    text = file.read_text()
    file.unlink()
    assert watched.look() == 0
    assert "the old code goes on" not in caplog.text  # an editor may be about to save it
    for _ in range(4):
        assert watched.look() == 0
    assert caplog.text.count("the old code goes on") == 1
    complaint = next(record.getMessage() for record in caplog.records if "goes on" in record.getMessage())
    assert re.search(rf"{name}.*no such file|No module named '{name}'", complaint), complaint
    file.write_text(text)
    assert watched.look() == 1
