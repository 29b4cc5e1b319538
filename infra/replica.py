"""What runs in a Serve replica: one service's application over the shared house."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


class Replica:
    """Opens the store and control database of the settings and serves one service's routes."""

    def __init__(self, service: str, settings: dict[str, Any]) -> None:
        from infra.bootstrap import House

        self.service = service
        self.house = House.in_worker(settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Serve once the replica is made."""
        from infra.applications import application

        return at_contract_paths(application(self.house, self.service))


def at_contract_paths(app: ASGIApp) -> ASGIApp:
    """The same application, routed by the whole path whatever prefix Serve mounted it at.

    Serve announces its prefix as ``root_path``, and routes would then be relative to it.
    """

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "root_path": ""}
        await app(scope, receive, send)

    return routed
