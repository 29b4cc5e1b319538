"""The HTTP application of each service, over a house, and one description of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.background import carry_out_in_ray, in_ray, retrain_in_ray
from infra.bootstrap import House
from infra.dicom import takes_dicom
from infra.extraction_worker import ExtractionWorker

if TYPE_CHECKING:
    from fastapi import FastAPI

SERVICES = ("ingest", "dicom", "selection", "training", "scoring")


def application(house: House, service: str) -> FastAPI:
    """The HTTP application of a service."""
    return _BUILDERS[service](house)


def _ingest_app(house: House) -> FastAPI:
    from feature_store.audit import AuditLog
    from services.ingest.app import DoorLimits, build_app
    from services.ingest.carrier import Carrier

    settings = house.settings
    extraction = (ExtractionWorker(settings, house.control),) if settings.auto_extract else ()
    return build_app(
        house.ingest,
        house.intake,
        house.control,
        AuditLog(house.control),
        DoorLimits(settings.body_limit_mb << 20, settings.requests_per_minute),
        workers=(Carrier(house.intake, carry_out_in_ray(settings), settings.cases_at_once), *extraction),
    )


def _selection_app(house: House) -> FastAPI:
    from feature_store.audit import AuditLog
    from services.selection.app import build_app

    return build_app(house.selection, house.control, AuditLog(house.control), in_ray(house.settings, "selection"))


def _training_app(house: House) -> FastAPI:
    from feature_store.audit import AuditLog
    from services.training.app import build_app
    from services.training.scheduler import Scheduler

    scheduler = Scheduler(house.schedules, retrain_in_ray(house.settings))
    background = in_ray(house.settings, "training")
    return build_app(house.training, house.control, AuditLog(house.control), background, scheduler)


def _scoring_app(house: House) -> FastAPI:
    from feature_store.audit import AuditLog
    from services.scoring.app import build_app
    from services.training.release_routes import release_router
    from services.training.schedule_routes import schedule_router

    # Who answers scores also answers which signatures are current: one door, one view of the releases. Schedules are
    # rows of the control database, which the training service looks at.
    return build_app(
        house.scoring,
        house.control,
        AuditLog(house.control),
        routers=(release_router(house.releases, house.control), schedule_router(house.schedules, house.control)),
        openapi=lambda: openapi(house),
    )


_BUILDERS = {
    "ingest": _ingest_app,
    "dicom": lambda house: house.dicom.app(),
    "selection": _selection_app,
    "training": _training_app,
    "scoring": _scoring_app,
}


def openapi(house: House) -> dict[str, Any]:
    """One OpenAPI document of all services."""
    from fastapi.openapi.utils import get_openapi

    from feature_store.vocabulary import RESEARCH_USE

    whole: dict[str, Any] = {}
    for service in SERVICES:
        if service == "dicom" and not takes_dicom(house.settings):
            continue
        app = application(house, service)
        part = get_openapi(title="asdeg", version="1", description=RESEARCH_USE, routes=app.routes)
        whole.setdefault("openapi", part["openapi"])
        whole.setdefault("info", part["info"])
        whole.setdefault("paths", {}).update(part["paths"])
        for kind, components in part.get("components", {}).items():
            whole.setdefault("components", {}).setdefault(kind, {}).update(components)
    return whole
