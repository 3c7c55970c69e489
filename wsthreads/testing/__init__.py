"""Helpers for tests of handlers, without a socket or with a real server.

::

    from wsthreads.testing import play

    def test_a_message_reaches_the_others():
        with play("chat.js") as chat:
            ann, bob = chat.connect(user="ann"), chat.connect(user="bob")
            ann.send("hi")
            assert bob.received[-1] == "hi"

`play` runs the handler in the real server code, with its rooms, limits and close codes. Only TCP is left out. When a
method of a client returns, all its effects have happened, so a test need not wait. `live_server` serves the same
handler on a port, for tests with your own client or a browser. `wsthreads.testing.fixtures` has pytest fixtures for
both.
"""

from wsthreads.testing.client import Client
from wsthreads.testing.live import live_server
from wsthreads.testing.play import HandlerFailed, Play, play

__all__ = ["Client", "HandlerFailed", "Play", "live_server", "play"]
