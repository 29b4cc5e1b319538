"""Who is asking: a key becomes a credential, and a credential may or may not.

Keys travel as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``; where PACS send, also as the password of HTTP
Basic. Roles:

- ``site`` writes its own cases and outcomes, reads them, and asks for scores of its own patients;
- ``application`` asks for scores (of one site where the credential names one);
- ``scientist`` reads every case's state, trains, releases, and asks for scores.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Protocol

from fastapi import Depends, Request
from fastapi.security import (
    APIKeyHeader,
    HTTPAuthorizationCredentials,
    HTTPBasic,
    HTTPBasicCredentials,
    HTTPBearer,
)

from feature_store.errors import AccessDenied, KeyRefused, TooMuchAtOnce

SITE, APPLICATION, SCIENTIST = "site", "application", "scientist"


class Credential(Protocol):
    """What the control database says of a key."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def site(self) -> str | None: ...


class KeyBook(Protocol):
    """Where keys are looked up: the control database."""

    def who(self, key: str) -> Credential | None: ...


class MeteredBook:
    """A key book that lets each key ask so many times a minute, in bursts of up to as many; for one process."""

    def __init__(self, book: KeyBook, per_minute: int) -> None:
        self._book, self._per_minute = book, per_minute
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def who(self, key: str) -> Credential | None:
        """Raises TooMuchAtOnce."""
        found = self._book.who(key)
        if found is not None and not self._take(found.name):
            raise TooMuchAtOnce(
                f"This key asked more than {self._per_minute} times a minute.",
                action="Wait a moment; the limit is ASDEG_REQUESTS_PER_MINUTE.",
            )
        return found

    def _take(self, name: str) -> bool:
        now = time.monotonic()
        with self._lock:
            left, at = self._left.get(name, (float(self._per_minute), now))
            left = min(float(self._per_minute), left + (now - at) * self._per_minute / 60)
            self._left[name] = (left - 1 if left >= 1 else left, now)
        return left >= 1


class AtOnce:
    """So many requests of one site at a time, for one process: whoever sends much leaves places for the others.

    A PACS sends an instance a request, thousands one after the other, so its requests are not counted by the minute.
    Not for several threads: places are taken and given back on the event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def place(self, site: str) -> Iterator[None]:
        """Raises TooMuchAtOnce."""
        if self._under_way[site] >= self._most:
            raise TooMuchAtOnce(
                f"This site has {self._most} requests under way.",
                action="Wait for an answer, then send again; the limit is ASDEG_DICOM_REQUESTS_AT_ONCE.",
            )
        self._under_way[site] += 1
        try:
            yield
        finally:
            self._under_way[site] -= 1


_bearer = HTTPBearer(auto_error=False, description="a key made by `asdeg keys add`")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="the same key, for clients without Bearer")
_basic = HTTPBasic(auto_error=False, description="the same key as the password, for PACS")


def allow(book: KeyBook, *roles: str, basic: bool = False) -> Callable[..., Credential]:
    """A FastAPI dependency that gives the caller's credential if it has one of the roles.

    With ``basic`` the key may also come as the password of HTTP Basic, under any user name.
    Raises KeyRefused (401) without a key that somebody has, AccessDenied (403) for another role.
    """

    def judged(request: Request, key: str | None) -> Credential:
        found = book.who(key) if key else None
        if found is None:
            raise KeyRefused(
                "No key, or one that nobody has.",
                action="Send `Authorization: Bearer KEY`; a key is made by `asdeg keys add`.",
            )
        request.state.caller = found
        if found.role not in roles:
            raise AccessDenied(
                f"A key of role {found.role} may not do this.", action=f"Use a key of role {' or '.join(roles)}."
            )
        return found

    def credential(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        header: Annotated[str | None, Depends(_header)],
    ) -> Credential:
        return judged(request, bearer.credentials if bearer is not None else header)

    def or_basic(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        header: Annotated[str | None, Depends(_header)],
        login: Annotated[HTTPBasicCredentials | None, Depends(_basic)],
    ) -> Credential:
        return judged(
            request, login.password if login is not None else bearer.credentials if bearer is not None else header
        )

    return or_basic if basic else credential


def check_site(credential: Credential, site: str) -> None:
    """Raise AccessDenied where the credential belongs to another site (a scientist belongs to none)."""
    if (credential.role == SITE or credential.site) and credential.site != site:
        raise AccessDenied("This key belongs to another site.", action="Use that site's own key.")
