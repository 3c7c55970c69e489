"""Where the fuzzing client runs: a Python 2.7, and its packages in a folder under build/."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.programs import ROOT

__all__ = ["EnvironmentMissing", "Fuzzer", "find_python27", "install"]

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "conformance"

INSTALL_TIMEOUT_S = 300
PROBE = "import sys; sys.exit(sys.version_info[:2] != (2, 7))"


class EnvironmentMissing(Exception):
    """What is not there, and what to do about it."""


@dataclass(frozen=True)
class Fuzzer:
    """A Python 2.7 and the folder that its packages are in."""

    python: str
    packages: Path

    def command(self, url: str, folder: Path, patience: float, patterns: list[str]) -> list[str]:
        program = str(HERE / "fuzzer.py")
        return [self.python, "-s", program, str(self.packages), url, str(folder), str(patience), *patterns]

    def environ(self) -> dict[str, str]:
        """Without what is meant for our Python."""
        return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def find_python27() -> str | None:
    """PYTHON27 of the environment, or one on the path, or pyenv's; None if none of them is a Python 2.7."""
    return next((python for python in _candidates() if _is_python27(python)), None)


def _candidates() -> Iterator[str]:
    if "PYTHON27" in os.environ:
        yield os.environ["PYTHON27"]
        return
    yield from filter(None, map(shutil.which, ("python2.7", "python2")))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True))


def _is_python27(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", PROBE], capture_output=True, timeout=INSTALL_TIMEOUT_S).returncode == 0
    except OSError:
        return False


def install() -> Fuzzer:
    """Find the Python, and install the packages where they are not yet, or not these.

    Raises `EnvironmentMissing`. Takes half a minute and the network the first time.
    """
    python = find_python27()
    if python is None:
        given = os.environ.get("PYTHON27")
        raise EnvironmentMissing(
            "the Autobahn Testsuite needs Python 2.7, and "
            + (f"PYTHON27={given} is none" if given else "there is none on the path, nor one of pyenv's")
            + ": install one (pyenv install 2.7.18), or name one by PYTHON27=/path/to/python2.7"
        )
    requirements = HERE / "requirements.txt"
    fuzzer = Fuzzer(python, BUILD / "packages")
    stamp = fuzzer.packages / "installed"
    wanted = f"{python} {hashlib.sha256(requirements.read_bytes()).hexdigest()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return fuzzer
    shutil.rmtree(fuzzer.packages, ignore_errors=True)
    fuzzer.packages.mkdir(parents=True)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    try:
        subprocess.run(
            [*pip, "--target", str(fuzzer.packages), "-r", str(requirements)],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=INSTALL_TIMEOUT_S,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        output = error.output.decode() if isinstance(error.output, bytes) else error.output or ""
        raise EnvironmentMissing(f"{python} cannot install the Autobahn Testsuite:\n{output[-2000:]}") from error
    stamp.write_text(wanted)
    return fuzzer
