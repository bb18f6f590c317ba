"""What every tab and route is given: the data folder, who acts, and what the page must know about the start."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from saadi.config import Home
from saadi.store import Store

person: ContextVar[str | None] = ContextVar("person", default=None)
"""Named by the request; set by the server for the time of one request."""
STATIC_DIR = Path(__file__).resolve().parent / "static"


@dataclass
class Context:
    """One per process; holds no connection, since a connection belongs to one thread."""

    home: Home
    user: str
    """Who acts where no request says so: the user of this computer's account."""
    notice: str | None = None
    """A sentence for the page while the start is not finished (the demo project is being made), or why it failed."""
    static_version: str = field(default_factory=lambda: static_version())

    @property
    def actor(self) -> str:
        """Who acts in this request: several reviewers may share one computer, and the page says who sits there."""
        return person.get() or self.user

    @contextmanager
    def open(self) -> Iterator[Store]:
        """Open a store for this thread; costs 0.6 ms."""
        with Store.open(self.home) as store:
            yield store


def static_version() -> str:
    """Hash over all files in `static/`: the address changes with the content, so browsers may keep them for good."""
    digest = hashlib.sha256()
    for path in sorted(STATIC_DIR.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
