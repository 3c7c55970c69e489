"""What shows where a test hangs: every thread's stack, in the test's own process and in those that it has started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import programs
from tests.programs import DEADLINE_S, PROGRAM_S, ROOT, Program

HANGS = """if True:
    import signal, threading
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    forever = threading.Event()
    def stuck_in_a_thread(): forever.wait()
    def stuck_in_main(): print("ready", flush=True); forever.wait()
    threading.Thread(target=stuck_in_a_thread, daemon=True).start()
    stuck_in_main()
"""

#: One that hangs, with a child that does.
PARENT = f"""if True:
    import subprocess, sys, threading
    child = subprocess.Popen([sys.executable, "-c", {HANGS!r}])
    def stuck_beside_it(): threading.Event().wait()
    stuck_beside_it()
"""


@pytest.mark.parametrize(
    ("source", "shown"),
    [(HANGS, ["stuck_in_a_thread", "stuck_in_main"]), (PARENT, ["stuck_in_a_thread", "stuck_beside_it"])],
    ids=["alone", "with a child"],
)
@pytest.mark.parametrize("wait", [lambda program: program.wait_for("never"), lambda program: program.end()])
def test_a_program_that_hangs_shows_the_stacks_of_all_threads(monkeypatch, source, shown, wait):
    with Program([sys.executable, "-c", source]) as program:
        program.wait_for("^ready$")
        monkeypatch.setattr(programs, "PROGRAM_S", 0.2)
        if source is PARENT:
            program.process.send_signal = lambda number: None  # SIGTERM would end it
        with pytest.raises(AssertionError) as caught:
            wait(program)
        monkeypatch.undo()
        program.wait()
        program._reader.join(DEADLINE_S)
    for function in shown:
        assert f"in {function}\n" in str(caught.value) + program.log


def test_a_test_that_hangs_shows_the_stacks_of_all_threads(tmp_path):
    """What setup.cfg asks for, with less patience."""
    (tmp_path / "test_it.py").write_text(
        "import threading\n"
        "def test_it():\n"
        "    begun, end = threading.Event(), threading.Event()\n"
        "    def hangs_in_a_thread(): begun.set(); end.wait()\n"
        "    thread = threading.Thread(target=hangs_in_a_thread)\n"
        "    thread.start()\n"
        "    thread.join(2)\n"
        "    end.set()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-c", ROOT / "setup.cfg", "--rootdir", tmp_path, tmp_path]
    result = subprocess.run(
        [*command, "-o", "faulthandler_timeout=0.5", "-p", "no:cacheprovider"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PROGRAM_S, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    assert "in hangs_in_a_thread\n" in result.stderr
    assert "in test_it\n" in result.stderr
    assert "faulthandler_timeout = " in (ROOT / "setup.cfg").read_text()


def test_each_program_has_a_folder_of_its_own_for_its_sockets():
    """gunicorn's control socket is there: a second gunicorn with the same would remove it."""
    show = "import os; print(os.environ['XDG_RUNTIME_DIR'], os.path.isdir(os.environ['XDG_RUNTIME_DIR']))"
    folders = set()
    for _ in range(2):
        with Program([sys.executable, "-c", show]) as program:
            found = program.wait_for(r"^(\S+) True$")[1]
            assert program.wait() == 0
        assert not Path(found).exists()
        folders.add(found)
    assert len(folders) == 2
