"""Packages of npm for tests, installed once into build/packages, by npm itself."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from tests.programs import ROOT

#: It names the packages, each with its exact version.
WANTED = ROOT / "tests" / "javascript" / "packages" / "package.json"

#: The longest time that npm may take.
INSTALL_TIMEOUT_S = 300


def node_modules() -> Path:
    """The folder with the packages in `WANTED`. The first call installs them; all processes share them."""
    folder = ROOT / "build" / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    installed = folder / "installed.json"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists() or installed.read_text() != WANTED.read_text():
            npm = shutil.which("npm")
            assert npm is not None, "these tests need npm and Node: apt-get install npm"
            installed.unlink(missing_ok=True)
            shutil.copy(WANTED, folder / "package.json")
            options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
            command = [npm, "install", *options]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
            assert done.returncode == 0, f"npm cannot install the packages: {done.stderr}"
            shutil.copy(WANTED, installed)
    return folder / "node_modules"
