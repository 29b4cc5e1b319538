"""A case of a path, for who may see it: one that belongs to another site is not there."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Path, Request

from feature_store.control import CaseState
from feature_store.errors import UsageError
from services.access import SITE, Credential, KeyBook, allow
from services.ingest.handler import IngestHandler

CaseId = Annotated[str, Path(max_length=64, description="as the answer to the push gives it")]


def own_case(handler: IngestHandler, book: KeyBook, *roles: str) -> Callable[..., CaseState]:
    """A FastAPI dependency that gives the case of the path's ``case_id`` to callers of those roles.

    Raises KeyRefused, AccessDenied as :func:`allow` does; NotFound where there is no such case, in the same words
    where it is another site's: whether a patient is known there is nobody else's business.
    """
    caller_of = allow(book, *roles)

    def case(request: Request, case_id: CaseId, caller: Annotated[Credential, Depends(caller_of)]) -> CaseState:
        found = handler.find(case_id, read_site(caller))
        request.state.about = (found.site, found.patient_id, found.case_id)
        return found

    return case


def read_site(caller: Credential) -> str | None:
    """The site whose cases a caller may see; None: every one. Raises UsageError for a site's key that names none."""
    return site_of(caller) if caller.role == SITE else caller.site


def site_of(caller: Credential) -> str:
    """The site a key writes for. Raises UsageError where it names none."""
    if not caller.site:
        raise UsageError(
            "This key names no site.", action="Make one with `asdeg keys add NAME --role site --site SITE`."
        )
    return caller.site
