"""The command ``wsthreads``: run, check, connect, new, publish, kick."""
