"""What runs when and where: the housekeeping threads, the cores of sessions, restarts of what must go on."""
