"""The decision of an `on_handshake` about a client. The same for Python and for scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

from wsthreads.errors import HandlerError, HandshakeRefused
from wsthreads.protocol.frames import check_close

if TYPE_CHECKING:
    from wsthreads.protocol.handshake import Request

__all__ = ["BadVerdict", "Refusal", "Verdict", "refused_by", "verdict_of"]

#: The HTTP statuses that a refusal may have.
STATUSES = range(400, 600)

NO_REDIRECT = "browsers do not follow a redirect of a WebSocket"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Return this from `on_handshake` to refuse a client with a close code that its page can read.

    A browser hides the HTTP status of a refused handshake: the page sees 1006, as for a lost connection. So with a
    `Refusal`, the server accepts the client, and closes the connection at once with `code` and `reason`. No other
    function of the handler is called. Use 4000 to 4999 for your own codes. Raises `CloseCodeError` for a code that
    `Session.close` does not accept.
    """

    code: int
    reason: str = ""

    def __post_init__(self) -> None:
        check_close(self.code, self.reason)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about a client that gets the response 101.

    If it has a `refusal`, the connection is closed at once.
    """

    subprotocol: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None


class BadVerdict(HandlerError):
    """An `on_handshake` has returned an invalid value, or has raised an invalid refusal."""


def verdict_of(answer: Any, request: Request, what: str, *, shown: str | None = None, refusal: str) -> Verdict:
    """Interpret the return value of an `on_handshake`.

    None and True accept the client. False refuses it with 403, and a whole number with that status. A text is the
    subprotocol to speak, which the client must have offered. A `Refusal` closes the connection with its code.

    Raises `HandshakeRefused` for a refusal by status, and `BadVerdict` for any other value. The texts of errors show
    `what` (the function), `shown` (the value) and `refusal` (how to write a `Refusal`), all in the language of the
    handler.
    """
    if answer is None or answer is True:
        return Verdict(attributes=request.attributes)
    if answer is False:
        raise HandshakeRefused(403, "refused")
    if isinstance(answer, Refusal):
        return Verdict(refusal=answer)
    if isinstance(answer, int) and answer in STATUSES:
        raise HandshakeRefused(answer, "refused")
    if isinstance(answer, str) and answer in request.subprotocols:
        return Verdict(subprotocol=answer, attributes=request.attributes)
    shown = f"{answer!r}" if shown is None else shown
    why = f" ({NO_REDIRECT})" if isinstance(answer, int) and 300 <= answer <= 399 else ""
    offered = len(request.subprotocols) or "none"  # the names are not shown, because they can be tokens
    raise BadVerdict(
        f"{what} returned {shown:.200}{why}; it may return nothing, true, false, a status from 400 to 599, {refusal}, "
        f"or a subprotocol that the client offered ({offered})"
    )


def refused_by(error: HTTPException, request: Request, what: str) -> HandshakeRefused:
    """Make a refusal that has the response of a werkzeug exception, such as that of Flask's `abort(401)`.

    Raises `BadVerdict` if its status is not from 400 to 599.
    """
    response = error.get_response(request.environ)
    if response.status_code not in STATUSES:
        why = f" ({NO_REDIRECT})" if 300 <= response.status_code <= 399 else ""
        raise BadVerdict(f"{what} raised {error!r:.200}{why}; a refusal has a status from 400 to 599")
    refusal = HandshakeRefused(response.status_code, error.description or error.name)
    refusal.response = response
    return refusal
