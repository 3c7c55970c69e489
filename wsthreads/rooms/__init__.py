"""Who is in which room, and broadcasts in one order."""
