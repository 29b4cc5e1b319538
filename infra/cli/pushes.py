"""Where ``ingest`` sends a case: into a store, or over HTTP under the pseudonym where the site's key is here."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from feature_store.errors import ManifestError, UsageError
from infra.cli.case_sources import CaseSource
from infra.cli.session import Progress, Session

if TYPE_CHECKING:
    from infra.bootstrap import House
    from services.ingest.messages import CaseReceipt

PushOne: TypeAlias = "Callable[[CaseSource, Progress], CaseReceipt]"


def into_store(session: Session, site: str) -> PushOne:
    """Reads and stores cases here."""
    house = session.house(create=True)

    def push(case: CaseSource, _: Progress) -> CaseReceipt:
        receipt = house.ingest.ingest_reading(case.read(), site)
        record(house, "asdeg ingest", site, receipt.case_id)
        return receipt

    return push


def record(house: House, command: str, site: str, case_id: str | None = None) -> None:
    """What was pushed by command is on record like what came over HTTP."""
    from feature_store.audit import Act, AuditLog
    from feature_store.control import Credential

    by = Credential(getpass.getuser(), "operator", None)
    AuditLog(house.control).record(by, Act("push", site=site, case_id=case_id, details={"route": command}))


@contextmanager
def over_http(session: Session, server: str, key_file: Path | None, site: str) -> Iterator[PushOne]:
    """Pushes case folders to services with the key in a file. Raises UsageError without a usable key file."""
    from infra.bootstrap import site_keys
    from infra.site_client import SiteClient
    from services.ingest.deidentification.pseudonym import pseudonymous
    from services.ingest.messages import CaseReceipt

    keys = site_keys(session.settings)

    def push(case: CaseSource, progress: Progress) -> CaseReceipt:
        if case.folder is None:
            raise UsageError("Over HTTP only case folders are taken.", action="Leave --server out for BIDS.")
        replaced = {}
        if keys.of(site) is not None:
            replaced["case.yaml"] = _under(case.folder, lambda patient_id: pseudonymous(keys, site, patient_id))
        return CaseReceipt.model_validate(client.push_case(case.folder, replaced, progress))

    with SiteClient(server, _key(key_file)) as client:
        yield push


def _key(file: Path | None) -> str:
    if file is None:
        raise UsageError("--server needs --key-file.", action="Make a key there: asdeg keys add NAME --role site.")
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{file} cannot be read.", action="Give a file of one line with the key.") from None
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise UsageError(f"{file} holds no key.", action="Give a file of one line with the key.")
    return key


def _under(folder: Path, pseudonym: Callable[[str], str]) -> bytes:
    """The folder's case.yaml with the patient's pseudonym. Raises ManifestError where it has no patient."""
    import yaml

    from pipelines.cases.strict_yaml import read_strict_yaml

    manifest = read_strict_yaml(folder / "case.yaml", ManifestError)
    if not isinstance(manifest.get("patient_id"), str):
        raise ManifestError("patient_id must be text.", action="Mend it.", file="case.yaml")
    manifest["patient_id"] = pseudonym(manifest["patient_id"])
    return yaml.safe_dump(manifest, allow_unicode=True, sort_keys=False).encode()
