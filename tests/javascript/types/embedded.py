"""What `make lint` has mypy check: the public names, as docs/how-to/embedding.rst uses them."""

from flask import Flask

from wsthreads import Endpoint, Request, Session, WebSocketApp, use_all_cores

flask_app = Flask(__name__)
websockets = WebSocketApp(flask_app.wsgi_app)
flask_app.wsgi_app = websockets  # type: ignore[method-assign]


@websockets.route("/ws/chat")
class Chat:
    def on_handshake(self, request: Request) -> int | None:
        return None if request.get_parameter("user") else 401

    def on_message(self, session: Session, message: str | bytes) -> None:
        use_all_cores()
        session.room("chat").broadcast_except(message)


def close_all(endpoint: Endpoint) -> int:
    for session in endpoint.sessions():
        session.close(4001, "logged out")
    endpoint.room("chat").broadcast("bye")
    return endpoint.session_count()


chat: Endpoint = websockets.endpoint("/ws/chat")
again: Endpoint = websockets.add_handler("/ws/again", Chat())
left: int = websockets.shutdown()
