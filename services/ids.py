"""Identifiers that are unique and sort by time."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime


def new_id(kind: str) -> str:
    """``kind-20261123T093046-8f3a1c9b``: the time to the second, then 32 random bits."""
    return f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
