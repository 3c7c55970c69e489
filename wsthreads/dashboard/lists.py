"""Makes the page's lists: sessions, rooms, one session, one user's sessions, the persons in a room.

The lists are about this process. `workers` combines the lists of all processes. The lists contain no secrets: see
`redaction`. A *person* is a user with all sessions in a room, or a session without a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest, nsmallest
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from wsthreads.dashboard.redaction import public_headers, public_json, public_values, shown_values
from wsthreads.dashboard.room_state import owner_of, room_state
from wsthreads.errors import IsolateError
from wsthreads.rooms.names import user_room

if TYPE_CHECKING:
    from wsthreads.dashboard.requests import Watch
    from wsthreads.monitoring.metrics import Traffic
    from wsthreads.rooms.histories import Histories
    from wsthreads.rooms.mailboxes import OwnedState
    from wsthreads.sessions.endpoint import Endpoint
    from wsthreads.sessions.served import Served
    from wsthreads.sessions.session import Session

__all__ = ["LISTS", "find_session", "persons_list", "rooms_list", "session_details", "sessions_list", "sort_key"]

#: At most this many of a session's rooms are in its row.
ROOMS_SHOWN = 5

#: A parameter or attribute that is longer does not count as the name of a user.
MAX_USER_CHARS = 100

#: The shortest time between two pings to a session that is in a list.
MEASURED_S = 10.0

USER_NAMES = ("user", "name")


def sessions_list(endpoints: Iterable[Endpoint], watch: Watch) -> dict[str, Any]:
    """Returns the message with the sessions that `watch` asks for: those that match a filter, or those of a user."""
    total = 0
    found: list[tuple[Endpoint, Session, Served]] = []
    for endpoint in endpoints:
        served = endpoint.served()
        total += len(served)
        if watch.endpoint in (None, endpoint.path):
            found += _matching(endpoint, served, watch)
    rows = (nlargest if watch.descending else nsmallest)(watch.limit, found, key=_key_for(watch.sort))
    return {
        "type": watch.list,
        "request": watch.request,
        "endpoint": watch.endpoint,
        "user": watch.user,
        "total": total,
        "matched": len(found),
        "rows": [_row(*entry) for entry in rows],
    }


def _matching(
    endpoint: Endpoint, served: dict[Session, Served], watch: Watch
) -> Iterator[tuple[Endpoint, Session, Served]]:
    room = watch.room if watch.user is None else user_room(watch.user)
    members = None if room is None else set(endpoint.rooms.sessions(room))
    has = _finder(endpoint, watch.filter.lower())
    for session, one in served.items():
        if (members is None or session in members) and has(session):
            yield endpoint, session, one


def _finder(endpoint: Endpoint, needle: str) -> Callable[[Session], bool]:
    """Returns a function that says whether a session matches the text `needle`.

    The function is fast, because a list may have many sessions.
    """
    if needle in endpoint.path.lower():
        return lambda session: True
    rooms = endpoint.rooms
    members = set(chain.from_iterable(rooms.sessions(name) for name in rooms.sizes() if needle in name.lower()))

    def has(session: Session) -> bool:
        return (
            session in members
            or needle in session.id.lower()
            or needle in session.remote_addr
            or needle in (_user_of(session) or "").lower()
        )

    return has


def sort_key(sort: str) -> Callable[[dict[str, Any]], Any]:
    """Returns a key function that sorts rows in the same order as `sessions_list`."""
    return lambda row: (row["since"] if sort == "since" else row[sort] or 0, row["since"])


def _key_for(sort: str) -> Callable[[tuple[Endpoint, Session, Served]], Any]:
    """Returns a key function that sorts sessions. Sessions with the same value are sorted by age."""
    if sort == "since":
        return lambda entry: entry[1].opened_at
    value = attrgetter(sort)
    return lambda entry: (value(entry[2].traffic()) or 0, entry[1].opened_at)


def _row(endpoint: Endpoint, session: Session, served: Served) -> dict[str, Any]:
    rooms = session.rooms()
    connection = served.connection
    if connection is not None:
        connection.measure(MEASURED_S)
    traffic: Traffic = served.traffic()
    return {
        "id": session.id,
        "endpoint": endpoint.path,
        "address": session.remote_addr,
        "path": session.request_path,
        "user": _user_of(session),
        "has_user": session.user is not None,  # otherwise the name is a guess
        "since": session.opened_at,
        "rooms": rooms[:ROOMS_SHOWN],
        "room_count": len(rooms),
        **traffic._asdict(),
        "open": session.is_open(),
        "connected": connection is not None,
    }


def _user_of(session: Session) -> str | None:
    """Returns the session's user.

    If there is none, guesses: an attribute, or else a parameter, called `user` or `name`.
    """
    if session.user is not None:
        return session.user
    query = session.request.environ.get("QUERY_STRING", "")
    for name in USER_NAMES:
        user = session.attributes.get(name)
        if user is None and f"{name}=" in query:  # parsed only if needed, because the session keeps the result
            user = session.get_parameter(name)
        if isinstance(user, str) and 0 < len(user) <= MAX_USER_CHARS:
            return user
    return None


def find_session(endpoints: Iterable[Endpoint], session_id: str) -> tuple[Endpoint, Session, Served] | None:
    """Returns the session with this id, with its endpoint and its `Served`. None if the session has ended."""
    for endpoint in endpoints:
        for session, served in endpoint.served().items():
            if session.id == session_id:
                return endpoint, session, served
    return None


def session_details(endpoints: Iterable[Endpoint], watch: Watch) -> dict[str, Any]:
    """Returns the message with the details of the session that `watch` asks for. Secrets are hidden."""
    found = find_session(endpoints, watch.session_id)
    head = {"type": "session", "request": watch.request, "id": watch.session_id, "gone": found is None}
    if found is None:
        return head
    endpoint, session, served = found
    return {
        **head,
        **_row(*found),
        "rooms": session.rooms(),
        "parameters": public_values(session.request.parameters),
        "headers": public_headers(session.request.headers),
        "attributes": _attributes_of(endpoint, session),
        "subprotocol": session.subprotocol,
        "survives": served.dialogue is not None and served.dialogue.outbox.is_keeping,
    }


def _attributes_of(endpoint: Endpoint, session: Session) -> dict[str, str]:
    try:
        handler = endpoint.handler
        values = shown_values(handler.attributes(session))
        return {handler.shown(name): handler.shown(value) for name, value in values.items()}
    except IsolateError as error:
        return {"?": str(error)}


def rooms_list(endpoints: Iterable[Endpoint], watch: Watch) -> dict[str, Any]:
    """Returns the message with the rooms that `watch` asks for, the largest first. Counts the members in this process.

    A row contains the size of the room's history in this process. If this process owns the room, the row also contains
    the state of the owner.
    """
    endpoints = list(endpoints)
    total = 0
    found: list[tuple[int, str, str]] = []
    needle = watch.filter.lower()
    for endpoint in endpoints:
        rooms = endpoint.rooms.sizes()
        total += len(rooms)
        if watch.endpoint in (None, endpoint.path):
            found += [(-size, endpoint.path, name) for name, size in rooms.items() if needle in name.lower()]
    rows = nsmallest(watch.limit, found)
    held = {endpoint.path: (endpoint.rooms.history, endpoint.ownership.states()) for endpoint in endpoints}
    return {
        "type": "rooms",
        "request": watch.request,
        "total": total,
        "matched": len(found),
        "rows": [
            {"endpoint": path, "name": name, "members": -size, **_held(*held[path], name)} for size, path, name in rows
        ],
    }


def _held(history: Histories[Any] | None, states: dict[str, OwnedState], name: str) -> dict[str, Any]:
    """Returns the fields of a room's row about its history and its owner, as far as these exist."""
    held = {} if history is None else {"history": history.size_of(name)[0]}
    owner = owner_of(states.get(name))
    return held if owner is None else {**held, "owner": owner}


def persons_list(endpoints: Iterable[Endpoint], watch: Watch) -> dict[str, Any]:
    """Returns the message with the persons in the room that `watch` asks for, in the order of their arrival.

    Includes the persons of all processes.

    Secrets in presence values (values that persons show to others) are hidden, and long values are cut.
    """
    endpoint = next((endpoint for endpoint in endpoints if endpoint.path == watch.endpoint), None)
    persons = [] if endpoint is None or watch.room is None else endpoint.roster.persons(watch.room)
    shown = str if endpoint is None else endpoint.handler.shown
    return {
        "type": "room",
        "request": watch.request,
        "endpoint": watch.endpoint,
        "name": watch.room,
        "matched": len(persons),
        "rows": [
            {
                "key": person.key,
                "user": person.user,
                "since": person.since,
                "sessions": person.sessions,
                "presence": shown(public_json(person.presence)),
            }
            for person in persons[: watch.limit]
        ],
    }


#: For each list: the function that makes it.
LISTS: dict[str, Callable[[Iterable[Endpoint], Watch], dict[str, Any]]] = {
    "sessions": sessions_list,
    "rooms": rooms_list,
    "session": session_details,
    "user": sessions_list,
    "room": persons_list,
    "room_state": room_state,
}
