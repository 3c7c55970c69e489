"""What counts as a change; `wsthreads run --reload` as a whole is in tests/test_cli.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsthreads import WebSocketApp
from wsthreads.reloader import Reloader
from wsthreads.targets import Target


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
