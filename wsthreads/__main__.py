"""``python -m wsthreads`` is the command ``wsthreads``."""

from wsthreads.cli.commands import main

if __name__ == "__main__":
    main()
