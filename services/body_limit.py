"""A request that is no upload is small: what is larger is refused before anything has it in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.http_errors import respond


class BodyLimit:
    """Answers 413 for a body over ``limit`` bytes, announced or not, unless it is streamed.

    ``streamed`` are patterns of ``METHOD /path`` whose routes read their body piece by piece.
    """

    def __init__(self, app: ASGIApp, limit: int, streamed: Sequence[re.Pattern[str]]) -> None:
        self.app, self._limit, self._streamed = app, limit, streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_streamed(scope):
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"")
        body = bytearray()
        more = not (announced.isdigit() and int(announced) > self._limit)
        too_large = not more
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the caller is gone
            body += message.get("body", b"")
            too_large = len(body) > self._limit
            more = message.get("more_body", False) and not too_large
        if too_large:
            answer = respond(
                413,
                "BodyTooLarge",
                f"The request is larger than {self._limit >> 20} MB.",
                "Send tables in parts; the limit is ASDEG_BODY_LIMIT_MB.",
            )
            await answer(scope, receive, send)
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, again, send)

    def _is_streamed(self, scope: Scope) -> bool:
        called = f"{scope['method']} {scope['path']}"
        return any(pattern.fullmatch(called) for pattern in self._streamed)
