"""Simulates machines by network namespaces on one bridge. Each has its own address, and can be unplugged.

Linux, root, and the command ``ip`` are needed.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import Any

__all__ = ["Machine", "Network"]


class Network:
    """A context manager: a bridge, with an address for this process."""

    def __init__(self, subnet: str = "10.217.83") -> None:
        self._subnet = subnet
        self._tag = f"wst{os.getpid() % 100_000}"
        self._bridge = f"{self._tag}b"
        self._machines: list[Machine] = []

    def machine(self) -> Machine:
        """One more machine."""
        number = len(self._machines) + 1
        machine = Machine(f"{self._tag}m{number}", f"{self._subnet}.{number}")
        self._machines.append(machine)
        near, far = f"{self._tag}n{number}", f"{self._tag}f{number}"
        _ip("netns", "add", machine.name)
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", machine.name)
        _ip("link", "set", near, "master", self._bridge, "up")
        _ip("-n", machine.name, "link", "set", "lo", "up")
        _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", far)
        _ip("-n", machine.name, "link", "set", far, "up")
        machine.cable = near
        return machine

    def __enter__(self) -> Network:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self._subnet}.254/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self._machines:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", machine.name)
        _ip("link", "delete", self._bridge)


class Machine:
    """A network namespace. `start` starts processes in it."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.cable = ""

    def start(self, *command: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        """A process on this machine. `options` are those of `subprocess.Popen`."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command], stdin=subprocess.DEVNULL, encoding="utf-8", **options
        )

    def unplug(self) -> None:
        """From now on, its packets are lost silently."""
        _ip("link", "set", self.cable, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self.cable, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)
