"""Converts bytes to messages and back: handshake, frames, compression, the envelope. Knows nothing of sessions.

Words with one meaning in all modules of this package:

==============  ============================================================================
frame           the unit in which WebSocket sends data; the server sends each message as one
plain frame     a message as a frame without compression or escape (`frames.message_frame`)
mark            an option of a message that travels with its frame (`MarkedFrame`): its *key*
                (`latest`), its room, whether the history keeps it
outbox          the queue of frames for one client; any thread may append
backlog         the frames of an outbox that the kernel had no space for
blocked         said of an outbox: the kernel is full, the window is full, or there is no
                connection
flusher         the thread that runs all timers and writes again when a socket has space
channel         the sending side of one connection; it decides the *ending*: code and reason
envelope        the subprotocol ``wsthreads.1``, which adds requests and resuming
counted         said of a message: its receiver acknowledges it in ``wsthreads.1``
kept            said of a counted message: written, and not acknowledged yet
window          the most bytes that may be kept before the client must acknowledge some
`on_stuck`      called when a client reads too slowly
==============  ============================================================================
"""
