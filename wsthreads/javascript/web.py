"""The Python half of the web's globals. It does work that Python can do better or faster than a script."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from typing import TYPE_CHECKING

from wsthreads.javascript.calls import Answer, Function

if TYPE_CHECKING:
    from wsthreads.javascript.engine import Engine

__all__ = ["WebFunctions"]

#: The hashes of Web Cryptography, by Python's names.
_HASHES = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}

_SPACE = str.maketrans("", "", "\t\n\f\r ")


class WebFunctions:
    """Functions that the ``lazy`` parts of the runtime call, in the isolate's thread. They have no state.

    Bytes are passed in the parcel. Without an engine, they are passed as text with characters up to U+00FF.
    """

    def __init__(self) -> None:
        self.engine: Engine | None = None

    def functions(self) -> dict[str, Function]:
        return {
            "encode_text": self._encode,
            "decode_bytes": self._decode,
            "find_encoding": _find_encoding,
            "encode_base64": _encode_base64,
            "decode_base64": _decode_base64,
            "random_bytes": lambda count: self._answer(os.urandom(count)),
            "random_uuid": _random_uuid,
            "digest": self._digest,
            "hmac": self._hmac,
            "domain_to_ascii": _domain_to_ascii,
        }

    def _bytes(self, text: str | None) -> bytes:
        """Bytes from the runtime. `text` has them as characters, or is None if they are in the parcel."""
        if text is None and self.engine is not None:
            return self.engine.take_bytes()
        assert text is not None
        return text.encode("latin-1")

    def _answer(self, data: bytes) -> Answer:
        """Pass bytes to the runtime. Returns them as text, or true if they are in the parcel."""
        if self.engine is None:
            return data.decode("latin-1")
        if not self.engine.put_bytes(data):
            raise MemoryError("the script's heap has no room for the bytes")
        return True

    def _encode(self, text: str) -> Answer:
        try:
            return self._answer(text.encode())
        except UnicodeEncodeError:  # a lone surrogate, which becomes U+FFFD
            return self._answer(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode())

    def _decode(
        self, data: str | None, name: str, fatal: bool, final: bool, rest: str, flag: str
    ) -> tuple[str, str, str] | None:
        """Decode bytes.

        Returns the text and the state for the next call, or None for malformed data if `fatal` is true.

        The state has two parts: `rest` is bytes in hexadecimal, and `flag` is a number that is too large for
        JavaScript, as text.
        """
        from wsthreads.javascript.encodings import decode

        try:
            text, left, state = decode(self._bytes(data), name, fatal, final, (bytes.fromhex(rest), int(flag)))
        except UnicodeDecodeError:
            return None
        return text, left.hex(), str(state)

    def _digest(self, data: str | None, name: str) -> Answer:
        return self._answer(hashlib.new(_HASHES[name], self._bytes(data), usedforsecurity=False).digest())

    def _hmac(self, data: str | None, name: str, key: str) -> Answer:
        return self._answer(hmac.digest(key.encode("latin-1"), self._bytes(data), _HASHES[name]))


# These functions import modules that only some scripts need.


def _find_encoding(label: str) -> str | None:
    from wsthreads.javascript.encodings import find_encoding

    return find_encoding(label)


def _domain_to_ascii(domain: str) -> str | None:
    from wsthreads.javascript.domains import domain_to_ascii

    return domain_to_ascii(domain)


def _random_uuid() -> str:
    import uuid

    return str(uuid.uuid4())


def _encode_base64(text: str) -> str | None:
    """Encode base64 for `btoa`. Returns None if there is a character above U+00FF."""
    try:
        return base64.b64encode(text.encode("latin-1")).decode()
    except UnicodeEncodeError:
        return None


def _decode_base64(text: str) -> str | None:
    """Decode base64 for `atob`, as https://infra.spec.whatwg.org defines. Returns None for invalid base64."""
    text = text.translate(_SPACE)
    if len(text) % 4 == 0:
        text = text.removesuffix("==") if text.endswith("==") else text.removesuffix("=")
    if len(text) % 4 == 1 or "=" in text:
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return None
