"""The server's log: distinguishes real errors from those of injected faults."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.stress.faults import INJECTED

#: How a record begins: the server's own logging, or gunicorn's.
_BEGIN = re.compile(r"(?m)^(?=\d{4}-\d\d-\d\d \d\d:|\[\d{4}-\d\d-\d\d \d\d:)")

_TROUBLE = re.compile(
    r"\b(ERROR|CRITICAL)\b|\[(error|critical)\]|Traceback|Exception ignored|Fatal Python|Segmentation"
)

#: Texts that mark a record of an injected fault. Some errors of QuickJS have no stack.
EXPECTED = (INJECTED, "out of memory", "no memory left", "Too many open files")

#: What is logged of each death, by thread.
_DEATHS = {
    "flusher": "wsthreads-flusher has failed and is started again",
    "drainer": "wsthreads-drainer has failed and is started again",
    "writer-1": "wsthreads-writer-1 has failed and is started again",
    "isolate": "has died, so its sessions are closed",
}


class Log:
    """A growing log file. Records with a text in `excuse` are permitted."""

    def __init__(self, path: str, excuse: Iterable[str] = ()) -> None:
        self._path = Path(path)
        self._excuse = tuple(excuse)
        self._read = 0
        self._open = ""  # the last record, which may be incomplete
        self._trouble: list[str] = []
        self._deaths: Counter[str] = Counter()

    def trouble(self) -> list[str]:
        """The records that must not occur, one line each."""
        self._look()
        return [*self._trouble, *self._troubles_of(self._open)]

    def deaths(self) -> Counter[str]:
        """How many deaths have been logged, by thread."""
        self._look()
        return self._deaths + Counter(self._deaths_of(self._open))

    def _look(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        *records, self._open = _BEGIN.split(self._open + whole.decode(errors="replace"))
        for record in records:
            self._trouble += self._troubles_of(record)
            self._deaths.update(self._deaths_of(record))

    def _troubles_of(self, record: str) -> list[str]:
        if not _TROUBLE.search(record) or any(text in record for text in self._excuse):
            return []
        lines = record.splitlines()
        return [" | ".join([lines[0], *lines[1:][-3:]])]

    def _deaths_of(self, record: str) -> list[str]:
        return [name for name, text in _DEATHS.items() if text in record]
