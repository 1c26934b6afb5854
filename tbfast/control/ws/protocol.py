"""uvicorn's WebSocket protocol; closing does not wait for clients that read nothing."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tbfast import limits

ABORT_S: Final = 2.0
PING_S: Final = 10.0  # a connection that is idle is asked so often whether it is there
SILENT_S: Final = 20.0  # and closed when it does not answer so long: 30 s in all, as ThingsBoard


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Cuts a connection off that is still there a moment after its end."""

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """The session is over."""
        super().on_task_complete(task)
        self.loop.call_later(ABORT_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """The client did not answer."""
        super().keepalive_timeout()
        self.loop.call_later(ABORT_S, self.transport.abort)


SETTINGS: Final[dict[str, Any]] = {
    "ws": WebSocketProtocol,
    "ws_max_size": limits.WS_MESSAGE_BYTES,
    "ws_ping_interval": PING_S,
    "ws_ping_timeout": SILENT_S,
    "ws_per_message_deflate": False,
}
