"""Serves sessions of both languages in a process of its own, and prints what was changed of the standard library."""

import sys

hooks = []
sys.addaudithook(lambda event, _: hooks.append(event) if event == "sys.addaudithook" else None)

import asyncio  # noqa: E402, F401
import concurrent.futures  # noqa: E402
import http.server  # noqa: E402, F401
import logging  # noqa: E402, F401
import multiprocessing  # noqa: E402, F401
import socketserver  # noqa: E402, F401
import ssl  # noqa: E402, F401
import subprocess  # noqa: E402, F401
import tempfile  # noqa: E402
import threading  # noqa: E402
from pathlib import Path  # noqa: E402

HOOKS = ("excepthook", "unraisablehook", "breakpointhook", "displayhook")


def snapshot():
    """Every function of the standard library's modules and of their classes; the hooks of sys and threading."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in sys.stdlib_module_names or name == "__main__":
            continue
        for attribute, value in list(vars(module).items()):
            if callable(value) or attribute in HOOKS:
                found[f"{name}.{attribute}"] = value
            if isinstance(value, type) and value.__module__ == name:
                found.update({f"{name}.{attribute}.{own}": its for own, its in vars(value).items() if callable(its)})
    found["sys.profile"], found["sys.trace"] = sys.getprofile(), sys.gettrace()
    found["threading.profile"], found["threading.trace"] = threading.getprofile(), threading.gettrace()
    return found


concurrent.futures.ThreadPoolExecutor, concurrent.futures.ProcessPoolExecutor  # noqa: B018, imported when asked for
before = snapshot()

from websockets.sync.client import connect  # noqa: E402

from wsthreads import WebSocketApp  # noqa: E402
from wsthreads.cli.client import Client  # noqa: E402, F401
from wsthreads.testing import live_server  # noqa: E402


class Echo:
    def on_message(self, session, message):
        session.room("all").join()
        session.room("all").broadcast(message)


with tempfile.TemporaryDirectory() as folder:
    script = Path(folder, "a.js")
    script.write_text("export function onMessage(session, message) { session.send(message) }")
    app = WebSocketApp(cpu_affinity=True, dashboard_token="a-token-of-many-letters", serve_health=True)
    app.add_handler("/python", Echo)
    app.add_script("/script", script)
    with live_server(app) as server:
        for path in ("/python", "/script"):
            with connect(server.ws_url + path) as client:
                client.send("hi")
                assert client.recv() == "hi"

after = snapshot()
changed = [name for name, value in before.items() if after.get(name) is not value and name in after]
print(*(changed + hooks or ["nothing"]))
