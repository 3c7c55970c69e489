"""The app of test_containment: an endpoint whose functions raise what is no `Exception`, beside views that do.

Each call that a client can see the end of leaves a line in the file that MARKERS names.
"""

import asyncio
import os
import sys

from flask import Flask, Response, request

from wsthreads import WebSocketApp


class Own(BaseException):
    """Such as time limits and tracing tools raise in threads."""


ERRORS = {
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "Own": Own,
    "SystemExit": SystemExit,
}

flask = Flask(__name__)


def fail_at(where, asked):
    if asked.get("at") == where:
        raise ERRORS[asked["error"]](f"out of {where}")


@flask.before_request
def before():
    fail_at("before_request", request.args)


@flask.get("/")
def view():
    asked = dict(request.args)
    fail_at("view", asked)

    def body():
        yield "a view"
        fail_at("body", asked)

    response = Response(body())
    response.call_on_close(lambda: fail_at("close", asked))
    return response


app = WebSocketApp(flask.wsgi_app)


def mark(*words):
    with open(os.environ["MARKERS"], "a") as markers:
        print(*words, file=markers)


@app.route("/ws")
class Failing:
    def on_handshake(self, request):
        fail_at("on_handshake", request.parameters)

    def on_open(self, session):
        fail_at("on_open", session.request.parameters)

    def on_message(self, session, message):
        if message == "fail":
            fail_at("on_message", session.request.parameters)
            fail_at("on_error", {**session.request.parameters, "error": "Own"})
        session.send(message)

    def on_close(self, session, code, reason):
        mark("closed")
        fail_at("on_close", session.request.parameters)

    def on_error(self, session, error):
        mark("error", type(error).__name__, session.get_parameter("at"))
        fail_at("on_error", session.request.parameters)


def around(environ, start_response):
    """What is around the app: a middleware, a dispatcher."""
    fail_at("around", dict(part.split("=") for part in environ.get("QUERY_STRING", "").split("&") if "=" in part))
    return app(environ, start_response)


if __name__ == "__main__":
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
