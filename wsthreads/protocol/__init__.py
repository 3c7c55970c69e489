"""Converts bytes to messages and back: handshake, frames, compression. Does not know sessions."""
