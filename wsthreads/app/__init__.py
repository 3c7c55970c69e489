"""`WebSocketApp`, the WSGI application that users make.

- `application`: the class, with everything that users call.
- `arguments`: checks the arguments of `WebSocketApp`, and makes the defaults.
- `routing`: finds the endpoint for the path of a request.
- `dispatcher`: decides which part of the app answers a request.
- `factory`: makes an endpoint with its rooms.
- `host`: learns from the WSGI server how many threads it has, and when it ends.
- `shutdown`: closes all sessions and ends all threads.
"""

from wsthreads.app.application import WebSocketApp

__all__ = ["WebSocketApp"]
