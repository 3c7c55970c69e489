"""Who is in which room, and fan-out to all members in one order."""
