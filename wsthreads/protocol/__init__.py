"""From bytes to messages and back: handshake, frames, compression. Knows no session."""
