"""Connection: what uvicorn leaves open about a connection.

`scope["state"]["peercert"]` of its requests is the client's certificate, which was verified.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """One connection, on the event loop."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = transport.get_extra_info("peercert")
        self.app_state = {**self.app_state, "peercert": peer}
