"""Accounts and messages of accounts.js, in SQLite. The script calls the functions in ``__all__``, each in a thread."""

import hashlib
import hmac
import os
import secrets
import sqlite3
import time
from contextlib import closing
from pathlib import Path

__all__ = ["last", "login", "logout", "register", "save", "user_of"]

#: The file is in the working directory, or, in a service, in the directory that systemd names.
DATABASE = Path(os.environ.get("STATE_DIRECTORY", ""), "accounts.sqlite3")

#: How long a login lasts.
TOKEN_S = 7 * 24 * 3600

TABLES = """
CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, salt BLOB NOT NULL, password BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tokens (token BLOB PRIMARY KEY, user TEXT NOT NULL, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, user TEXT NOT NULL, text TEXT NOT NULL, at REAL NOT NULL);
"""


class LoginError(Exception):
    """What a user has done wrong. The script shows the text."""


def register(name: str, password: str) -> str:
    """Make an account, and log in. Returns a token."""
    if not isinstance(name, str) or not name.isidentifier() or len(name) > 40:
        raise LoginError("a name has 1 to 40 letters, digits and _, and does not begin with a digit")
    if not isinstance(password, str) or not 8 <= len(password) <= 200:
        raise LoginError("a password has 8 to 200 characters")
    salt = secrets.token_bytes(16)
    with closing(_connect()) as database, database:
        try:
            database.execute("INSERT INTO users VALUES (?, ?, ?)", (name, salt, _hashed(password, salt)))
        except sqlite3.IntegrityError:
            raise LoginError(f"the name {name} is taken") from None
        return _new_token(database, name)


def login(name: str, password: str) -> str:
    """Returns a token."""
    with closing(_connect()) as database, database:
        found = database.execute("SELECT salt, password FROM users WHERE name = ?", (str(name),)).fetchone()
        salt, expected = found or (b"nobody", b"")  # an unknown name takes as long
        if not hmac.compare_digest(_hashed(str(password)[:200], salt), expected):
            raise LoginError("name or password is wrong")
        return _new_token(database, name)


def user_of(token: str) -> str | None:
    """The user of this token; None if the token is unknown or has expired."""
    with closing(_connect()) as database:
        query = "SELECT user FROM tokens WHERE token = ? AND expires > ?"
        found = database.execute(query, (_digest(token), time.time())).fetchone()
        return None if found is None else found[0]


def logout(user: str) -> None:
    """Make all tokens of a user invalid."""
    with closing(_connect()) as database, database:
        database.execute("DELETE FROM tokens WHERE user = ?", (user,))


def save(user: str, text: str) -> dict:
    """Store a message. Returns it, with its number and its time."""
    now = time.time()
    with closing(_connect()) as database, database:
        number = database.execute("INSERT INTO messages (user, text, at) VALUES (?, ?, ?)", (user, text, now)).lastrowid
    return {"id": number, "user": user, "text": text, "at": now}


def last(count: int) -> list[dict]:
    """The last messages, the oldest first."""
    with closing(_connect()) as database:
        rows = database.execute("SELECT id, user, text, at FROM messages ORDER BY id DESC LIMIT ?", (count,)).fetchall()
    return [dict(zip(("id", "user", "text", "at"), row, strict=True)) for row in reversed(rows)]


def _connect() -> sqlite3.Connection:
    database = sqlite3.connect(DATABASE, timeout=10)  # seconds to wait for other threads
    database.executescript(TABLES)
    return database


def _hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def _digest(token: str) -> bytes:
    """Only the digest is stored, so somebody who reads the database gets no tokens."""
    return hashlib.sha256(str(token).encode()).digest()


def _new_token(database: sqlite3.Connection, user: str) -> str:
    token = secrets.token_urlsafe(24)
    database.execute("INSERT INTO tokens VALUES (?, ?, ?)", (_digest(token), user, time.time() + TOKEN_S))
    return token
