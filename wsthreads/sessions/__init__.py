"""The life of a session: handshake, calls of the handler, end."""
