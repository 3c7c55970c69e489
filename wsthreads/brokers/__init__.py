"""Rooms that several processes share, over Redis. Not imported unless an app has a broker.

With a broker, an app has a `Link`, and each of its endpoints has `SharedRooms` in place of `Rooms`. A module uses only
modules above it.

What is in Redis:

=================  =====================================================================================
`messages`         how a message between processes is written, and which kinds there are
`positions`        how far a process has got in a room's log
`keys`             the keys in Redis, what each contains, and for how long
`kept`             how the history of a room is written
`pipeline`         calls of scripts, many in one round trip
`log_scripts`      the Lua scripts that write and read the log of a room, and its history
`scripts`          the other Lua scripts that run inside of Redis
`session_scripts`  the Lua scripts for sessions on their way between two processes
`session_state`    how such a session is written
`lease_scripts`    the Lua scripts for the owners of rooms, and for posts
`redis_errors`     Redis's errors in words
`malformed`        what is dropped of that which comes from Redis
=================  =====================================================================================

What waits:

=================  =====================================================================================
`pending`          broadcasts that are not back yet
`held`             the frames of a session that must not overtake them
`interface`        what rooms and links may call of each other
`availability`     whether Redis answers, and how long a call waits for it
`questions`        what processes ask each other
`registration`     this process at Redis: its name there, and that it is alive
`subscription`     a room with members in this process
`checkpoints`      looks at rooms at a moment when nothing is being delivered
`seats`            places in rooms with `max_members`
`queue`            what waits to be sent
`posts`            posts to rooms: those that this process sends, and those that it handles
=================  =====================================================================================

What an endpoint uses:

=================  =====================================================================================
`away`             finds sessions that are on their way between two processes
`directory`        reaches users and single sessions in all processes
`presence`         who is there, in all processes
`history`          the histories of rooms, in all processes
`attributes`       what rooms hold, in all processes
`ownership`        which rooms this process owns
`rooms`            the rooms and sessions that handlers use
=================  =====================================================================================

Sessions that go on in another process:

=================  =====================================================================================
`missed`           what a session has missed in its rooms on the way
`passages`         how a session leaves the rooms of this process, and enters them
`exports`          sessions of this process that go on in another one
`imports`          sessions that go on in this process
`handover`         both, and what ends sessions whose clients do not come back
=================  =====================================================================================

What a link is made of:

=================  =====================================================================================
`process`          this process: its name, its lock, its tickets
`subscriptions`    the rooms with members in this process
`publisher`        broadcasts and other messages that this process publishes
`calls`            calls of scripts that somebody waits for
`arrivals`         what a process does with each kind of message: `HANDLERS`
`replay`           what rooms have missed, read from their logs
`claims`           the rooms that this process wants to own or owns, and its leases
`turns`            the posts of these rooms at Redis, and giving rooms back
`leases`           taking rooms, and keeping them
`reader`           the thread that receives from Redis
`announcements`    telling Redis which rooms have members in this process
`presence_writer`  what is sent of presence
`writer`           the thread that sends to Redis
`at_exit`          what waits when a process ends
`link`             what rooms call: `RedisLink`
`cluster`          a link to each node of a Redis Cluster
`outside`          what a program without a server does: publish, ask, post
`remote`           the handles of programs without a server
`redis`            `RedisBroker`: the configuration
=================  =====================================================================================
"""

from wsthreads.brokers.interface import Broker, Link, Listener

__all__ = ["Broker", "Link", "Listener"]
