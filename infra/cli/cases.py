"""Cases and outcomes in: ``validate``, ``ingest``, ``outcomes``, ``cases``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_store.errors import AsdegError, InputError, UsageError
from infra.cli.command import command
from infra.cli.session import Session

if TYPE_CHECKING:
    from services.ingest.messages import CaseReceipt, Finding

Site = Annotated[str, typer.Option(help="The site that sends.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "validate", example="asdeg validate ./phantoms/site_a/p001")(validate)
    command(app, "ingest", example="asdeg ingest ./phantoms/site_a --site site_a")(ingest)
    command(app, "outcomes", example="asdeg outcomes ./phantoms/site_a/outcomes.csv --site site_a")(outcomes)
    command(app, "cases", example="asdeg cases --site site_a")(cases)


def validate(session: Session, case_dir: Annotated[Path, typer.Argument(help="Case folder with case.yaml.")]) -> None:
    """Say what ingest would say of a case folder; nothing is stored and no server is needed."""
    from services.ingest.handler import validate_folder

    _check_folder(case_dir)
    receipt = validate_folder(case_dir)
    if session.as_json:
        session.json(receipt)
    else:
        print(
            f"{receipt.state}: {len(receipt.sequences)} sequences ({', '.join(receipt.sequences)}), {receipt.rois} ROIs"
        )
        _print_findings(receipt.findings)
        for note in receipt.notes:
            print(f"  note: {note}")
    if receipt.findings:
        raise InputError(
            f"{len(receipt.findings)} of the case's parts cannot be used.", action="See the findings above."
        )


def ingest(
    session: Session,
    cases_dir: Annotated[Path, typer.Argument(help="Folder of case folders, or one case folder.")],
    site: Site,
) -> None:
    """Take case folders into the store. A case that is there already changes nothing."""
    folders = _case_folders(cases_dir)
    handler = session.house(create=True).ingest
    rows: list[dict[str, object]] = []
    with session.progress("ingest") as progress:
        for number, folder in enumerate(folders):
            progress(f"{number + 1} of {len(folders)}", number / len(folders))
            try:
                receipt = handler.ingest_folder(folder, site)
                rows.append(_row(folder, receipt))
            except AsdegError as error:
                rows.append({"case": folder.name, "state": "rejected", "findings": [error.line()]})
        progress("done", 1.0)
    session.table("Cases", ("case", "case_id", "state", "unchanged", "sequences", "rois", "findings"), rows)
    rejected = sum(row["state"] == "rejected" for row in rows)
    unchanged = sum(bool(row.get("unchanged")) for row in rows)
    session.note(f"{len(rows) - rejected - unchanged} cases stored, {unchanged} unchanged, {rejected} rejected.")
    if rejected:
        raise InputError(f"{rejected} of {len(folders)} cases cannot be used.", action="See the findings above.")


def outcomes(
    session: Session,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with the columns of follow_up.")],
    site: Site,
) -> None:
    """Take follow-up measurements into the store and derive the labels."""
    from services.ingest.follow_up import read_follow_up

    if not file.is_file():
        raise UsageError(f"{file} is no file.", action="Give a CSV or Parquet file of follow-up measurements.")
    receipt = session.house().ingest.follow_up.add_table(read_follow_up(file), site)
    if session.as_json:
        session.json(receipt)
    else:
        stored = "nothing new" if receipt.unchanged else "stored"
        print(f"{receipt.measurements} measurements of {receipt.patients} patients ({stored}).")
        print(f"Labels: {receipt.positive} ASDeg, {receipt.negative} none, {receipt.unknown} unknown.")
        _print_findings(receipt.findings)
    if receipt.findings:
        raise InputError(f"{len(receipt.findings)} rows cannot be used.", action="See the findings above.")


def cases(session: Session, site: Annotated[str | None, typer.Option(help="Only this site's.")] = None) -> None:
    """List the cases and where they are on their way."""
    found = session.house().ingest.cases(site)
    session.table("Cases", ("case_id", "site", "state", "reasons"), [status.model_dump() for status in found])


def _case_folders(cases_dir: Path) -> list[Path]:
    _check_folder(cases_dir)
    if (cases_dir / "case.yaml").is_file():
        return [cases_dir]
    folders = sorted(path.parent for path in cases_dir.glob("*/case.yaml"))
    if not folders:
        raise UsageError(f"{cases_dir} holds no case folder.", action="A case folder is one with a case.yaml.")
    return folders


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder.", action="Give a case folder (one with a case.yaml).")


def _row(folder: Path, receipt: CaseReceipt) -> dict[str, object]:
    findings = [f"{finding.code}: {finding.file}: {finding.message}" for finding in receipt.findings]
    return {"case": folder.name, **receipt.model_dump(), "findings": findings}


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        print(f"  {finding.code}: {finding.file}: {finding.message} {finding.action}")
