"""Rooms that several processes share, over Redis. Not imported unless an app has a broker.

With a broker, an app has a `Link`, and each of its endpoints has `SharedRooms` in place of `Rooms`. A module uses only
modules above it in the tables.

Words with one meaning in all modules of this package:

============  ===========================================================================
process       a process of a server or of a program, with a link; it has a random name
reader        the thread of a link that receives messages from Redis
writer        the thread of a link that sends messages to Redis
shard         one of the parts over which rooms are spread; all keys of a room are in one
log           the stream in Redis that has the last messages to a room
position      a place in a room's log: epoch, number and id of a message
epoch         the name of a log; if Redis loses its data, the new log has another name
ticket        the number of a message of this process; later messages have higher ones
pending       said of a broadcast: published, but not yet received back from Redis
subscription  a room whose messages this process receives
seat          the right of a session to become a member of a room with `max_members`
lease         the right of a process to own rooms of one shard, until a certain time
fence         the fencing number of an ownership: later ownerships have higher numbers
claim         a room that this process owns or wants to own; in `handover` and `imports`,
              what a client that reconnects says about its session
post          a request to a room; the process that owns the room handles it
hidden room   a room for the processes alone: one for each user, one for single sessions
============  ===========================================================================

Data in Redis:

=================  ======================================================================
`messages`         encodes and decodes the messages between processes
`positions`        positions in a room's log
`keys`             the keys in Redis, with their contents and lifetimes
`stored_history`   parses the history of a room
`pipeline`         calls scripts, many in one round trip
`log_scripts`      the Lua scripts that write and read the log of a room, and its history
`scripts`          the Lua scripts for members, presence and bans
`session_scripts`  the Lua scripts for sessions that move between two processes
`session_state`    encodes the state of such a session
`lease_scripts`    the Lua scripts for the owners of rooms, and for posts
`redis_errors`     explains errors of Redis
`malformed`        counts and logs malformed data from Redis
=================  ======================================================================

Queues and waits:

=================  ======================================================================
`pending`          broadcasts that have not come back from Redis
`held_frames`      the frames of a session that must not overtake these broadcasts
`interface`        the methods that rooms and links may call on each other
`availability`     whether Redis answers, and how long a call waits for it
`questions`        questions to other processes, and their answers
`registration`     this process's name at Redis, and reports that it is alive
`subscription`     a room with members in this process
`checkpoints`      calls functions while no message is being delivered
`seats`            seats in rooms with `max_members`
`queue`            the queue for the thread that sends to Redis
`posts`            posts to rooms: sent by this process, and handled by it
=================  ======================================================================

For endpoints:

=================  ======================================================================
`moving_sessions`  finds sessions that are moving between two processes
`directory`        reaches users and single sessions in all processes
`presence`         the presence of rooms, in all processes
`history`          the histories of rooms, in all processes
`attributes`       the attributes of rooms, in all processes
`ownership`        the ownership of rooms, among all processes
`rooms`            the rooms and sessions that handlers use
=================  ======================================================================

Sessions that move between processes:

=================  ======================================================================
`missed_messages`  reads the messages that a session has missed
`passages`         takes sessions out of the rooms of this process, or into them
`exports`          moves sessions of this process to another one
`imports`          moves sessions to this process
`handover`         moves sessions both ways, and ends those whose clients do not return
=================  ======================================================================

The parts of a link:

=================  ======================================================================
`process`          this process: its name, its lock, its tickets
`subscriptions`    the rooms with members in this process
`publisher`        queues broadcasts and other messages
`calls`            calls scripts, and waits for their answers
`arrivals`         handles each kind of message: `HANDLERS`
`replay`           reads messages that rooms have missed from their logs
`claims`           the rooms that this process owns or wants to own, and its leases
`turns`            takes the posts of owned rooms, and gives up the ownership of rooms
`leases`           takes the ownership of rooms, and keeps it
`reader`           the thread that receives from Redis
`announcements`    announces to Redis the rooms with members in this process
`presence_writer`  sends changes of presence
`writer`           the thread that sends to Redis
`at_exit`          sends queued messages when a process ends
`link`             the link that rooms call: `RedisLink`
`cluster`          a link to each node of a Redis Cluster
`outside`          publishes, asks and posts for programs without a server
`remote`           the handles of programs without a server
`redis`            `RedisBroker`: the configuration
=================  ======================================================================
"""

from wsthreads.brokers.interface import Broker, Link, Listener

__all__ = ["Broker", "Link", "Listener"]
