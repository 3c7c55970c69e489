"""What an `on_handshake`, in either language, decides of a client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

from wsthreads.errors import HandlerError, HandshakeRefused
from wsthreads.protocol.frames import check_close

if TYPE_CHECKING:
    from wsthreads.protocol.handshake import Request

__all__ = ["BadVerdict", "Refusal", "Verdict", "refused_by", "verdict_of"]

#: What refuses a client with HTTP.
STATUSES = range(400, 600)

NO_REDIRECT = "browsers do not follow a redirect of a WebSocket"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Return it from `on_handshake` to refuse a client with a close code, which its page can read.

    A browser hides the HTTP status of a refused handshake: the page sees 1006, as for a lost connection. So this lets
    the client in and closes it at once with `code` and `reason`. No other function of the handler is called.
    Use 4000 to 4999 for codes of your own. Raises `CloseCodeError` for a code that `Session.close` does not take.
    """

    code: int
    reason: str = ""

    def __post_init__(self) -> None:
        check_close(self.code, self.reason)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `on_handshake` decided of a client that gets a 101: with a `refusal`, only to be closed."""

    subprotocol: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None


class BadVerdict(HandlerError):
    """An `on_handshake` has returned, or raised, what means nothing."""


def verdict_of(answer: Any, request: Request, what: str, *, shown: str | None = None, refusal: str) -> Verdict:
    """What the return value of an `on_handshake` means.

    None and True let in; False is a 403; a whole number is the status of a refusal; a text is the subprotocol to
    speak, which the client must have offered; a `Refusal` closes with its code. Raises `HandshakeRefused` for a
    refusal by status, and `BadVerdict` for anything else. `what` is the function, `shown` the answer and `refusal` a
    `Refusal` as the handler's language writes them.
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
    offered = len(request.subprotocols) or "none"  # not which: tokens may be among them
    raise BadVerdict(
        f"{what} returned {shown:.200}{why}; it may return nothing, true, false, a status from 400 to 599, {refusal}, "
        f"or a subprotocol that the client offered ({offered})"
    )


def refused_by(error: HTTPException, request: Request, what: str) -> HandshakeRefused:
    """The refusal that answers with the response of an exception of werkzeug's, such as of Flask's `abort(401)`.

    Raises `BadVerdict` where that is no refusal.
    """
    response = error.get_response(request.environ)
    if response.status_code not in STATUSES:
        why = f" ({NO_REDIRECT})" if 300 <= response.status_code <= 399 else ""
        raise BadVerdict(f"{what} raised {error!r:.200}{why}; a refusal has a status from 400 to 599")
    refusal = HandshakeRefused(response.status_code, error.description or error.name)
    refusal.response = response
    return refusal
