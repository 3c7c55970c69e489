"""The life of a session: who is let in, the handler's functions, the session and its endpoint."""
