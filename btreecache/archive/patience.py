"""Patience: how long a server may take to answer. Neither ZEO's client nor libpq has a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

#: A commit takes milliseconds; a server that is silent for so long won't answer any more.
ANSWER_S = 30.0

#: How long to wait until there is a connection.
CONNECT_S = 10.0


class Patience:
    """Of all connections of one database.

    seconds     an answer is awaited for so long, then the connection is cut; None: forever
    connect_s   and a connection for so long
    """

    def __init__(self, seconds: float = ANSWER_S) -> None:
        self.seconds: float | None = seconds
        self.connect_s = min(seconds, CONNECT_S)

    @contextmanager
    def boundless(self) -> Iterator[None]:
        """Meanwhile a server may take as long as it needs, as for a pack."""
        before, self.seconds = self.seconds, None
        try:
            yield
        finally:
            self.seconds = before
