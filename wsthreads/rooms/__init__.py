"""Rooms: members, presence, and broadcasts in one order."""
