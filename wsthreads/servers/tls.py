"""Creates a server's TLS context from a certificate and its key. Raises clear errors."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import NoReturn

from wsthreads.errors import UsageError

__all__ = ["server_context"]


def server_context(certificate: str | os.PathLike[str], key: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """Returns a context for TLS 1.2 and later.

    Both files are PEM files. If the certificate's file is a chain, it begins with the server's own certificate. Without
    `key`, the certificate's file must also have the key. Raises `UsageError`, which names the file, if a file is
    missing, has no certificate or no key, or is encrypted, or if the key does not match the certificate.
    """
    certificate = Path(certificate)
    key = certificate if key is None else Path(key)
    if b"-----BEGIN CERTIFICATE-----" not in _contents(certificate):
        raise UsageError(f"{certificate}: this file has no PEM certificate")
    if b"PRIVATE KEY-----" not in _contents(key):
        raise UsageError(f"{key}: this file has no PEM private key")

    def refuse() -> NoReturn:
        raise UsageError(f"{key}: the key is encrypted, and the server does not ask for a passphrase; decrypt it first")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # During a renegotiation, a write would have to wait for input, which another thread reads.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(f"{key}: the key does not match the certificate in {certificate}") from error
        files = str(certificate) if key == certificate else f"{certificate} and {key}"
        raise UsageError(f"{files}: cannot be used for TLS: {error.reason or error}") from error
    return context


def _contents(file: Path) -> bytes:
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):  # because reading a device may never end
            raise UsageError(f"{file}: not a regular file")
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {(error.strerror or str(error)).lower()}") from error
