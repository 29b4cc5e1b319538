"""A case of a path, for who may see it: one that belongs to another site is not there."""

# FastAPI reads annotations that name local dependencies, so they are not postponed here.
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Path, Request

from feature_store.control import CaseState
from services.access import Credential, KeyBook, allow
from services.ingest.handler import IngestHandler

CaseId = Annotated[str, Path(max_length=64, description="as the answer to the push gives it")]


def own_case(handler: IngestHandler, book: KeyBook, *roles: str) -> Callable[..., CaseState]:
    """A FastAPI dependency that gives the case of the path's ``case_id`` to callers of those roles.

    Raises KeyRefused, AccessDenied as :func:`allow` does; NotFound where there is no such case, in the same words
    where it is another site's: whether a patient is known there is nobody else's business.
    """
    caller_of = allow(book, *roles)

    def case(request: Request, case_id: CaseId, caller: Annotated[Credential, Depends(caller_of)]) -> CaseState:
        found = handler.find(case_id, caller.site)
        request.state.about = (found.site, found.patient_id, found.case_id)
        return found

    return case
