"""The life of a session: handshake, handler calls, end.

Words with one meaning in all modules of this package:

===============  ===========================================================================
handshake        the HTTP request of a client; the server accepts it with the response 101
wsthreads.1      the protocol of wsthreads' own clients: with requests, and sessions that can
                 be resumed over a new connection
hello, welcome   the first message of the client, and of the server, in wsthreads.1
token            what the welcome gives to the client to resume its session: id and *secret*
channel          sends and closes for a session: that of a connection, or a `Dialogue`
dialogue         the channel of a session that speaks wsthreads.1; it has one connection
                 after another
carrier          one connection of a dialogue
suspended        said of a session: without a connection, waiting for its client
turn             the right of one thread to call the handler for a session
event            something for the handler that waits for the turn
ending           the close code and the reason of a session; set when it begins to close
expiry           the time at which a session ends, such as that of a token
===============  ===========================================================================
"""
