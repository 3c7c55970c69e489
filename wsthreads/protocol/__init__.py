"""From a WSGI request to messages and back: handshake, frames, compression, the connection. Knows no session."""
