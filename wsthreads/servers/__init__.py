"""The server of ``wsthreads run``: HTTP, TLS, static files, shutdown."""
