"""The server of ``wsthreads run``: HTTP, TLS, static files, shutdown.

Words with one meaning in all modules of this package:

=====================  =====================================================================
head                   the first line and the headers of a request
accepting thread       the thread that accepts connections and starts a thread for each
session                a WebSocket connection that is served; all others carry one request
shutdown               the orderly end: sessions are closed, requests are answered
cut off                said of a connection: ended by force, because the shutdown took too
                       long
stalled                said of a client: it neither sends nor reads
leaf lock              a lock under which no other lock is taken
=====================  =====================================================================
"""
