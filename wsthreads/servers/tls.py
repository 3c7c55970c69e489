"""A certificate and its key, made into what a server needs to speak TLS, with clear errors."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import NoReturn

from wsthreads.errors import UsageError

__all__ = ["server_context"]


def server_context(certificate: str | os.PathLike[str], key: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """TLS 1.2 and later, with a certificate, or a chain of them, the server's own first, and its private key.

    Both are files in PEM; without `key`, the key is in the file with the certificate. Raises `UsageError`, which names
    the file, where one is missing, holds no such thing or is encrypted, or where the two do not belong together.
    """
    certificate = Path(certificate)
    key = certificate if key is None else Path(key)
    if b"-----BEGIN CERTIFICATE-----" not in _contents(certificate):
        raise UsageError(f"{certificate}: no certificate in PEM is in this file")
    if b"PRIVATE KEY-----" not in _contents(key):
        raise UsageError(f"{key}: no private key in PEM is in this file")

    def refuse() -> NoReturn:
        raise UsageError(f"{key}: the key is encrypted, and nobody is asked for its passphrase; decrypt it first")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A renegotiation would have a write wait for the peer's input, which is another thread's to read.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(f"{key}: the key is not that of the certificate in {certificate}") from error
        files = str(certificate) if key == certificate else f"{certificate} and {key}"
        raise UsageError(f"{files}: cannot be used for TLS: {error.reason or error}") from error
    return context


def _contents(file: Path) -> bytes:
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):  # a pipe is read once only, some devices for ever
            raise UsageError(f"{file}: not a regular file")
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {(error.strerror or str(error)).lower()}") from error
