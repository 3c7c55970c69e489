"""A judge of messages of ``wsthreads.1``: a second reading of docs/reference/protocol.rst, and what holds of ours."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.programs import ROOT
from wsthreads.errors import ProtocolError
from wsthreads.protocol import envelope

__all__ = ["browser", "judge", "judge_browser", "kind_of"]

LARGEST = 2**53 - 1
MOST_CHARS = 4096

TEXT = re.compile(
    r"\x10(?:(?P<count>[ap])|(?P<data>[qre])|(?P<none>n))(?P<number>0|[1-9][0-9]{0,15})(?::(?P<rest>.*))?", re.DOTALL
)
BINARY = re.compile(rb"\x10([qr])([1-9][0-9]{0,15}):(.*)", re.DOTALL)
NUMBERS = {"w": ("received", "resumeMs", "heartbeatMs", "timeoutMs")}


def kind_of(message: str | bytes) -> tuple[Any, ...] | None:
    """The letter of a message and its parts; "m" and the message itself for an ordinary one. None: it is malformed."""
    dle = "\x10" if isinstance(message, str) else b"\x10"
    if not message.startswith(dle):  # type: ignore[arg-type]
        return ("m", message)
    if message[1:2] == dle:
        return ("m", message[1:])
    if isinstance(message, bytes):
        found = BINARY.fullmatch(message)
        if found is None or int(found[2]) > LARGEST:
            return None
        return (found[1].decode(), int(found[2]), found[3])
    if message[1:2] in ("h", "w"):
        return _json_of(message[1], message[2:])
    text = TEXT.fullmatch(message)
    if text is None or int(text["number"]) > LARGEST:
        return None
    number, rest = int(text["number"]), text["rest"]
    if text["data"]:
        return None if rest is None or not number else (text["data"], number, rest)
    if rest is not None or (text["none"] and not number):
        return None
    return (message[1], number)


def _json_of(letter: str, text: str) -> tuple[Any, ...] | None:
    if len(text) > MOST_CHARS:
        return None
    try:
        value = json.loads(text, parse_constant=lambda name: 1 / 0)
    except (ValueError, RecursionError, ZeroDivisionError):
        return None
    if not isinstance(value, dict):
        return None
    if letter == "h":
        if "resume" not in value:
            return ("h", None, 0)
        resume = value["resume"]
        if not isinstance(resume, dict):
            return None
        token, received = resume.get("token"), resume.get("received")
        return ("h", token, received) if _is_token(token) and _is_number(received) else None
    numbers = [value.get(name) for name in NUMBERS["w"]]
    texts = [value.get(name) for name in ("token", "protocol", "why")]
    if type(value.get("resumed")) is not bool or not all(map(_is_number, numbers)):
        return None
    if not all(text is None or type(text) is str for text in texts) or not (texts[0] is None or _is_token(texts[0])):
        return None
    return ("w", value["resumed"], *numbers, *texts)


def _is_token(value: Any) -> bool:
    return type(value) is str and 1 <= len(value) <= 256 and all("!" <= character <= "~" for character in value)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def parts_of(parsed: envelope.Parsed) -> tuple[Any, ...]:
    """What `envelope.parse` returns, as `kind_of` says it."""
    match parsed:
        case envelope.Hello(token, received):
            return ("h", token, received)
        case envelope.Welcome():
            numbers = (parsed.received, parsed.resume_ms, parsed.heartbeat_ms, parsed.timeout_ms)
            return ("w", parsed.resumed, *numbers, parsed.token, parsed.protocol, parsed.why)
        case envelope.Ack(received):
            return ("a", received)
        case envelope.Heartbeat(received):
            return ("p", received)
        case envelope.Request(number, data):
            return ("q", number, data)
        case envelope.Reply(number, data):
            return ("r", number, data)
        case envelope.NullReply(number):
            return ("n", number)
        case envelope.Failure(number, reason):
            return ("e", number, reason)
    return ("m", parsed)


def written(parsed: envelope.Parsed) -> str | bytes:
    """The message that `envelope` writes for it."""
    match parsed:
        case envelope.Hello(token, received):
            return envelope.hello(token, received)
        case envelope.Welcome():
            return envelope.welcome(parsed)
        case envelope.Ack(received):
            return envelope.ack(received)
        case envelope.Heartbeat(received):
            return envelope.heartbeat(received)
        case envelope.Request(number, data):
            return envelope.request(number, data)
        case envelope.Reply(number, data):
            return envelope.reply(number, data)
        case envelope.NullReply(number):
            return envelope.null_reply(number)
        case envelope.Failure(number, reason):
            return envelope.failure(number, reason)
    return envelope.escaped(parsed)


def judge(message: str | bytes) -> None:
    """Our parser accepts what the page allows, and nothing else, and takes the same parts out of it."""
    expected = kind_of(message)
    try:
        parsed = envelope.parse(message)
    except ProtocolError:
        assert expected is None, (message, expected)
        return
    assert parts_of(parsed) == expected, (message, parsed, expected)
    again = written(parsed)
    assert type(again) is type(message), (message, again)
    assert parts_of(envelope.parse(again)) == expected, (message, again)
    if expected is not None and expected[0] not in "hw":  # JSON may be written in many ways
        assert again == message, (message, again)


# wsthreads.js

#: Behind its source: reads messages from the standard input, and answers with a line of JSON for each.
READER = """
let rest = Buffer.alloc(0);
const shown = (data) => typeof data === "string" ? { text: data } : { hex: Buffer.from(data).toString("hex") };
function answer(message) {
  if (typeof message === "string" && message.startsWith("\\x10w")) return { welcome: welcomeIn(message) };
  const { kind, id, data } = decode(message);
  const again = encode({ kind, id, data: typeof data === "string" ? data : new Uint8Array(data) });
  return { kind, id, ...shown(data), again: shown(again) };
}
process.stdin.on("data", (chunk) => {
  rest = Buffer.concat([rest, chunk]);
  while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(0)) {
    const [isBinary, end] = [rest[4], 5 + rest.readUInt32BE(0)];
    const bytes = new Uint8Array(rest.subarray(5, end));
    rest = rest.subarray(end);
    let found;
    try {
      found = answer(isBinary ? bytes.buffer : Buffer.from(bytes).toString());
    } catch (error) {
      found = { error: error.message };
    }
    process.stdout.write(JSON.stringify(found) + "\\n");
  }
});
"""


@contextmanager
def browser() -> Iterator[Callable[[str | bytes], dict[str, Any]]]:
    """What the functions of wsthreads.js make of a message, in node."""
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "reader.mjs"
        module.write_text((ROOT / "wsthreads/client/wsthreads.js").read_text() + READER)
        with subprocess.Popen(["node", str(module)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
            assert node.stdin is not None
            assert node.stdout is not None
            stdin, stdout = node.stdin, node.stdout

            def read(message: str | bytes) -> dict[str, Any]:
                payload = message.encode() if isinstance(message, str) else message
                stdin.write(struct.pack(">IB", len(payload), isinstance(message, bytes)) + payload)
                stdin.flush()
                answer: dict[str, Any] = json.loads(stdout.readline())
                return answer

            yield read


def judge_browser(message: str | bytes, answer: dict[str, Any]) -> None:
    """wsthreads.js takes the same as the page, of what a server sends.

    It is more generous with a welcome's JSON: 1.0 is an integer to JavaScript.
    """
    expected = kind_of(message)
    is_refused = "error" in answer
    if message[:2] == "\x10w":
        if expected is not None and not is_refused:
            names = ("resumed", *NUMBERS["w"], "token", "protocol")
            assert [answer["welcome"].get(name) for name in names] == list(expected[1:8]), (message, answer)
        assert is_refused or expected is not None or any(map(str.isdigit, message)), (message, answer)
    elif expected is None or expected[0] in "hp":
        assert is_refused or answer["id"] == 0, (message, answer)  # an id of 0 is refused later
    else:
        assert not is_refused, (message, expected, answer)
        data = bytes.fromhex(answer["hex"]) if "hex" in answer else answer["text"]
        again = answer["again"]
        parts = (
            answer["kind"] or "m",
            *([answer["id"]] if "id" in answer else []),
            *([] if answer["kind"] in ("a", "n") else [data]),
        )
        assert parts == expected, (message, expected, answer)
        if expected[0] != "a":
            assert message == (bytes.fromhex(again["hex"]) if "hex" in again else again["text"]), (message, again)
