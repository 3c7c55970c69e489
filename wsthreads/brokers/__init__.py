"""Rooms that several processes share, over Redis. Not imported unless an app has a broker.

With a broker, an app has a `Link`, and each of its endpoints has `SharedRooms` in place of `Rooms`. A module uses only
modules above it:

=================  =====================================================================================
`interface`        what rooms and links may call of each other
`messages`         how a message between processes is written, and which kinds there are
`pending`          broadcasts that are not back yet, and the frames that must not overtake them
`directory`        reaches users and single sessions in all processes
`presence`         who is there, in all processes
`keys`             the keys in Redis, what each contains, and for how long
`lease_scripts`    the Lua scripts for the owners of rooms, and for posts
`posts`            posts to rooms: those that this process sends, and those that it handles
`ownership`        which rooms this process owns
`attributes`       what rooms hold, in all processes
`rooms`            the rooms and sessions that handlers use
`scripts`          the Lua scripts that run inside of Redis
`pipeline`         calls of the scripts, many in one round trip
`positions`        how far a process has got in a room's log
`subscriptions`    a room with members in this process
`redis_errors`     Redis's errors in words
`questions`        what processes ask each other
`reader`           the thread that receives from Redis; `HANDLERS`: what it does with each kind of message
`queue`            what waits to be sent
`seats`            places in rooms with `max_members`
`claims`           the rooms that this process wants to own or owns, and its leases
`turns`            the posts of these rooms at Redis, and giving rooms back
`leases`           taking rooms, and keeping them
`presence_writer`  what is sent of presence
`availability`     whether Redis answers, and how long a call waits for it
`writer`           the thread that sends to Redis
`link`             what rooms call: `RedisLink`
`cluster`          a link to each node of a Redis Cluster
`remote`           the handles of programs without a server
`redis`            `RedisBroker`: the configuration
=================  =====================================================================================
"""

from wsthreads.brokers.interface import Broker, Link, Listener

__all__ = ["Broker", "Link", "Listener"]
