"""The life of a session: handshake, handler calls, end."""
