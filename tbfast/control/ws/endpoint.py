"""Where WebSockets are opened, and how many there may be."""

from typing import Final

from starlette.websockets import WebSocket

from tbfast import limits
from tbfast.control.rest.callers import Gate
from tbfast.control.rest.router import WebSocketHandler
from tbfast.control.services import Services
from tbfast.control.ws.history import Histories
from tbfast.control.ws.session import NO_POLICY, Session
from tbfast.control.ws.watches import Watches
from tbfast.model.device import Change

PATHS: Final = ("/api/ws", "/api/ws/plugins/telemetry", "/api/ws/telemetry")


class WebSocketRoutes:
    """Both forms of the API are understood on every path."""

    def __init__(self, services: Services, watches: Watches, gate: Gate) -> None:
        self._services = services
        self._histories = Histories(services.series)
        self._watches = watches
        self._gate = gate
        self._sessions: set[Session] = set()
        services.registry.subscribe(self._changed)

    def handlers(self) -> dict[str, WebSocketHandler]:
        """By path."""
        return dict.fromkeys(PATHS, self.serve)

    async def serve(self, websocket: WebSocket) -> None:
        """One connection."""
        if len(self._sessions) >= limits.WS_CONNECTIONS:
            await websocket.accept()
            await websocket.close(NO_POLICY, "Max sessions limit reached")
            return
        session = Session(websocket, self._services, self._histories, self._watches, self._gate)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)

    def _changed(self, change: Change) -> None:
        for session in self._sessions:
            session.changed(change)
