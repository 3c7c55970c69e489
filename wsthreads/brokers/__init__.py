"""Rooms that several processes share, over Redis.

Without a broker none of this is imported. With one, an app has a `Link`, and each of its endpoints `SharedRooms` in
place of `Rooms`. In the order in which they build on each other: `links`
(the seam), `messages` (what a broadcast looks like on its way),
`turns` (what must not overtake a broadcast that is on its way), `rooms` (what handlers see); and for Redis `scripts`
(what happens inside of Redis, and its keys), `positions` (how far a process has got in a room's log), `complaints`
(Redis's errors in words), `reader` (what comes), `orders` (what waits to go), `link` (what goes, and who is where),
`cluster` (a link to each node), `redis` (how it is configured, and broadcasting from outside).
"""

from wsthreads.brokers.links import Broker, Link, Listener

__all__ = ["Broker", "Link", "Listener"]
