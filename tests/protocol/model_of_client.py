"""The model of ``wsthreads.1`` with the Python client in the client's place: `wsthreads.client.dialogue.Dialogue`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from tests.protocol.model_of_resume import ACK_EVERY, Connection, Fault, Message, Violation, World, plain, unpack
from wsthreads.client.dialogue import Dialogue
from wsthreads.client.events import Answered, Asked, Opened, Pending
from wsthreads.errors import ProtocolError, RequestError
from wsthreads.protocol import envelope

__all__ = ["ClientWorld", "acknowledging_as_often"]


class RealClient:
    """What `World` asks of a client. `log` has, for each session, the values that were written, in order."""

    def __init__(self) -> None:
        self.dialogue = Dialogue(max_queued=1_000_000, max_queued_bytes=1_000_000)
        self.connection: Connection | None = None
        self.old = None
        self.is_over = False
        self.session = -1
        self.log: dict[int, list[int]] = {}
        self.written = 0  # how many of the session's messages were written, after the last welcome
        self.acknowledged = 0
        self.got = 0
        self.lost: set[int] = set()
        self.owed: list[tuple[Asked, int]] = []
        self.pending: dict[Pending, int] = {}
        self.replies: set[int] = set()  # their values
        self.ordinary: set[int] = set()  # values of ordinary messages

    @property
    def is_live(self) -> bool:
        return self.dialogue.is_open

    @property
    def kept(self) -> list[Any]:
        return list(self.dialogue._kept)

    @property
    def queue(self) -> list[Any]:
        return list(self.dialogue._unsent)


class ClientWorld(World):
    """Within `acknowledging_as_often`, and not for `explore`. The server is that of the model, with its mistakes."""

    client: RealClient

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__(fault)
        self.client = RealClient()

    # What the application does

    def client_sends(self) -> bool:
        if self.client.is_over:
            return False
        self.sent += 1
        self.client.ordinary.add(self.sent)
        assert self.client.dialogue.send(plain(self.sent))
        return self._pump()

    def client_asks(self) -> bool:
        if self.client.is_over:
            return False
        self.sent += 1
        pending = self.client.dialogue.request(plain(self.sent))
        assert pending is not None
        self.client.pending[pending] = self.sent
        return self._pump()

    def client_answers(self) -> bool:
        client = self.client
        if not client.owed or client.is_over:
            return False
        if not client.is_live and client.owed[0][1] % 2:
            return False  # it takes long: the next connection may be there, or the next session
        asked, value = client.owed.pop(0)
        if asked.session == client.dialogue.session:
            self.sent += 1
            client.replies.add(self.sent)
        text = f"{value}/{self.sent}"
        if self.sent % 3:
            client.dialogue.reply(asked, text if self.sent % 2 else text.encode())
        else:
            client.dialogue.fail(asked, text)
        return self._pump()

    def client_gives_up(self) -> bool:
        client = self.client
        if not client.pending:
            return False
        pending = next(iter(client.pending))
        value = client.pending.pop(pending)
        if pending.id is None:
            client.lost.add(value)
        client.dialogue.give_up(pending)
        return True

    # The connection

    def _pump(self) -> bool:
        """Write what the client wants to write."""
        client, connection = self.client, self.client.connection
        while connection is not None and (written := client.dialogue.take()) is not None:
            message = unpack(written)
            if message[0] in "mqr":
                log = client.log[client.session]
                if client.written == len(log):
                    log.append(message[-1])
                elif log[client.written] != message[-1]:
                    raise Violation(f"{message[-1]} is sent again in place of {log[client.written]}")
                client.written += 1
            if not (connection.is_cut or connection.is_closed):
                connection.to_server.append(written)
        return True

    def _client_acknowledges(self) -> None:
        self.client.dialogue.heartbeat()
        self._pump()

    def client_beats(self) -> bool:
        return self.client_acknowledges()

    def client_connects(self) -> bool:
        client = self.client
        if client.is_over or len(self.connections) >= 3:
            return False
        client.connection = Connection()
        self.connections.append(client.connection)
        client.dialogue.disconnected()
        client.dialogue.connected(True)
        self._tidy()
        return self._pump()

    def client_drops(self) -> bool:
        if self.client.connection is None:
            return False
        self.client.connection = None
        self.client.dialogue.disconnected()
        self._tidy()
        return True

    def client_finds_end(self) -> bool:
        connection = self.client.connection
        is_over = connection is not None and (connection.is_cut or (connection.is_closed and not connection.to_client))
        return is_over and self.client_drops()

    # What arrives

    def to_client(self) -> bool:
        client, connection = self.client, self.client.connection
        if connection is None or connection.is_cut or not connection.to_client:
            return False
        written = connection.to_client.pop(0)
        if isinstance(written, tuple):
            self._settle(client.dialogue.end())
            client.connection, client.is_over = None, True
            self._tidy()
            return True
        message = unpack(written)
        try:
            events = client.dialogue.receive(written)
        except ProtocolError as error:
            raise Violation(f"{message}: {error}") from None
        if message[0] == "w":
            opened = events.pop(0)
            assert isinstance(opened, Opened), opened
            self._welcomed(*message[1:], opened.lost)
        elif message[0] == "a":
            client.acknowledged = message[1]
        else:
            self._client_takes(message)
        self._settle(events)
        return self._pump()

    def _welcomed(self, is_resumed: bool, session: int, secret: int, received: int, lost: int = 0) -> None:
        client = self.client
        if is_resumed:
            if session != client.session:
                raise Violation("another session was resumed")
            client.written = client.acknowledged = received
            self.resumed += 1
            return
        if client.session >= 0 and client.session not in self.may_end:
            raise Violation("the session is lost")
        if self.is_closed:
            raise Violation("the client was closed, and is in again")
        former = client.log.get(client.session, [])[client.acknowledged :]
        client.lost.update(former, client.replies)
        if not len(client.ordinary.intersection(former)) <= lost <= len(former):
            raise Violation(f"{lost} messages may be lost, of {former}")
        client.got = client.written = client.acknowledged = 0
        client.session, client.log[session] = session, []

    def _client_takes(self, message: Message) -> None:
        client, session, value = self.client, self.sessions[self.client.session], message[-1]
        if value <= client.got:
            raise Violation(f"the client got {value} again")
        for missing in range(client.got + 1, value):
            if missing not in session.replaced:
                raise Violation(f"the client has missed {missing}")
        client.got = value

    def _settle(self, events: list[Any]) -> None:
        client = self.client
        for event in events:
            if isinstance(event, Asked):
                client.owed.append((event, client.got))
            elif isinstance(event, Answered):
                value = client.pending.pop(event.pending)
                answer, error = event.pending.answer, event.pending.error
                text = str(error) if isinstance(error, RequestError) else answer
                if text is not None and int((text if isinstance(text, str) else text.decode()).split("/")[0]) != value:
                    raise Violation("the reply to another request")

    def _check_lost(self) -> None:
        client = self.client
        unknown = set(range(1, self.sent + 1)) - self.taken - client.lost
        if client.is_over:
            logged = set().union(*client.log.values())
            unknown = (unknown & logged).difference(client.log[client.session][client.acknowledged :])
        if unknown:
            raise Violation(f"lost without a word: {sorted(unknown)}")


def acknowledging_as_often() -> AbstractContextManager[object]:
    """The client acknowledges as often as the model's sides do."""
    return patch.object(envelope, "CLIENT_ACK_MESSAGES", ACK_EVERY)
