"""Rooms: members, users, presence, and broadcasts in one order."""
