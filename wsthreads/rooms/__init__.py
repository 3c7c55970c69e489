"""Rooms: members, users, presence, and broadcasts in one order.

Words with one meaning in all modules of this package:

==============  ============================================================================
member          a session that has joined a room
hidden room     a room for the server alone: one for each user, one for single sessions
outbox          the queue of frames for one client
handle          an object by which handlers use a room, a user or a session
history, log    the last messages to a room; a *position* is a place among them
presence        a value that a session shows to the members; a *person* is a user with all
                sessions in the room, or one session without a user
lost            said of a session: its connection has ended, but the client may come back
owned room      a room whose handler functions (`on_post`, `on_tick`) this process calls;
                each ownership has a *fencing number*, higher than those before
post            a value for the owner of a room
stripe          one of the locks of a `StripedDict`; each guards a part of the keys
leaf lock       a lock under which no other lock is taken
==============  ============================================================================
"""
