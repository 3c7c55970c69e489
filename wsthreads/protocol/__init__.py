"""Converts bytes to messages and back: handshake, frames, compression, the envelope. Knows nothing of sessions."""
