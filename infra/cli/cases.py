"""Cases and what is said of them in: ``validate``, ``ingest``, ``outcomes``, ``clinical``, ``reads``, ``cases``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_store.errors import AsdegError, InputError, UsageError
from infra.cli.case_sources import LabelMapOption, SessionOption, find_cases
from infra.cli.command import command
from infra.cli.pushes import into_store, over_http, record
from infra.cli.session import Session

if TYPE_CHECKING:
    from services.ingest.messages import CaseReceipt, Finding, OutcomesReceipt, TableReceipt

Site = Annotated[str, typer.Option(help="The site that sends.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "validate", example="asdeg validate ./phantoms/site_a/p001")(validate)
    command(app, "ingest", example="asdeg ingest ./phantoms/site_a --site site_a", patients=True)(ingest)
    example = "asdeg outcomes ./phantoms/site_a/outcomes.csv --site site_a"
    command(app, "outcomes", example=example, patients=True)(outcomes)
    command(app, "clinical", example="asdeg clinical clinical.csv --site site_a", patients=True)(clinical)
    command(app, "reads", example="asdeg reads reads.csv --site site_a", patients=True)(reads)
    command(app, "cases", example="asdeg cases --site site_a")(cases)


def validate(
    session: Session,
    case_dir: Annotated[Path, typer.Argument(help="Case folder with case.yaml, or BIDS_DIR/sub-LABEL.")],
    site: Annotated[str, typer.Option(help="BIDS: the site whose case it would be.")] = "site",
    label_map: LabelMapOption = None,
    bids_session: SessionOption = None,
) -> None:
    """Say what ingest would say of a case folder or a subject of a BIDS data set.

    Nothing is stored and no server is needed. For BIDS: asdeg validate ./bids/sub-01 --label-map totalsegmentator-ct
    """
    from services.ingest.handler import validate_reading
    from services.ingest.quality import verdicts_of

    cases = find_cases(session, case_dir, site, label_map, bids_session)
    if len(cases) > 1:
        raise UsageError("There are several cases.", action="Give one: a case folder, or BIDS_DIR/sub-LABEL.")
    reading = cases[0].read()
    receipt, verdicts = validate_reading(reading), verdicts_of(reading)
    if session.as_json:
        session.json({**receipt.model_dump(), "quality": verdicts})
    else:
        print(
            f"{receipt.state}: {len(receipt.sequences)} sequences ({', '.join(receipt.sequences)}), {receipt.rois} ROIs"
        )
        _print_findings(receipt.findings)
        for note in receipt.notes:
            print(f"  note: {note}")
        for verdict in verdicts:
            for reason in verdict.reasons:
                print(f"  {verdict.verdict}: {f'{verdict.sequence} {verdict.roi}'.strip()}: {reason}")
    if receipt.findings:
        raise InputError(
            f"{len(receipt.findings)} of the case's parts cannot be used.", action="See the findings above."
        )


def ingest(
    session: Session,
    cases_dir: Annotated[Path, typer.Argument(help="Folder of case folders, one case folder, or a BIDS data set.")],
    site: Site,
    label_map: LabelMapOption = None,
    bids_session: SessionOption = None,
    server: Annotated[str, typer.Option(metavar="URL", help="Send to these services instead of a store.")] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="With --server: file of one line with the site's key for them.")
    ] = None,
) -> None:
    """Take cases into the store: case folders, or the subjects of a BIDS data set with masks under derivatives/.

    A case that is there already changes nothing. For BIDS: asdeg ingest ./bids --site site_a --label-map
    totalsegmentator-ct. Over HTTP (case folders only) a broken upload goes on where it broke, also when the command is
    called again: asdeg ingest ./site_a --site site_a --server http://127.0.0.1:8000 --key-file site_a.txt
    """
    cases = find_cases(session, cases_dir, site, label_map, bids_session)
    rows: list[dict[str, object]] = []
    with ExitStack() as opened, session.progress("ingest") as progress:
        push = opened.enter_context(over_http(session, server, key_file, site)) if server else into_store(session, site)
        for number, case in enumerate(cases):

            def tell(step: str, done: float, number: int = number) -> None:
                said = f"{number + 1} of {len(cases)}{f', {step}' if step else ''}"
                progress(said, (number + done) / len(cases))

            tell("", 0.0)
            try:
                rows.append(_row(case.name, push(case, tell)))
            except AsdegError as error:
                rows.append({"case": case.name, "state": "rejected", "findings": [error.line()]})
        progress("done", 1.0)
    session.table("Cases", ("case", "case_id", "state", "unchanged", "sequences", "rois", "findings"), rows)
    rejected = sum(row["state"] == "rejected" for row in rows)
    unchanged = sum(bool(row.get("unchanged")) for row in rows)
    session.note(f"{len(rows) - rejected - unchanged} cases stored, {unchanged} unchanged, {rejected} rejected.")
    if failed := sum(int(str(row.get("quality_failures", 0))) for row in rows):
        session.note(f"{failed} images and regions failed quality control: `asdeg quality --verdict fail` says why.")
    if rejected:
        raise InputError(f"{rejected} of {len(cases)} cases cannot be used.", action="See the findings above.")


def outcomes(
    session: Session,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with the columns of follow_up.")],
    site: Site,
) -> None:
    """Take follow-up measurements into the store and derive the labels."""
    from services.ingest.follow_up import read_follow_up

    house = session.house()
    receipt = house.ingest.follow_up.add_table(read_follow_up(_file(file)), site)
    record(house, "asdeg outcomes", site)
    stored = "nothing new" if receipt.unchanged else "stored"
    _say(
        session,
        receipt,
        f"{receipt.measurements} measurements of {receipt.patients} patients ({stored}).",
        f"Labels: {receipt.positive} ASDeg, {receipt.negative} none, {receipt.unknown} unknown.",
    )


def clinical(
    session: Session,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: patient_id and any variables of case.yaml.")],
    site: Site,
) -> None:
    """Mend clinical variables of cases that are in the store, a row each; a repeated push of the case keeps them.

    A variable that is no column stays what it is; an empty field says that it is not known. Several fused levels stand
    in one field, with blanks or semicolons between them.
    """
    from services.ingest.clinical import read_clinical

    house = session.house()
    receipt = house.ingest.clinical.put_table(read_clinical(_file(file)), site)
    record(house, "asdeg clinical", site)
    _say_table(session, receipt)


def reads(
    session: Session,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: patient_id, surgeon, prediction (0 or 1).")],
    site: Site,
) -> None:
    """Take surgeons' own predictions into the store, a row each."""
    from services.ingest.reads import read_reads

    house = session.house()
    receipt = house.ingest.reads.put_table(read_reads(_file(file)), site)
    record(house, "asdeg reads", site)
    _say_table(session, receipt)


def _file(file: Path) -> Path:
    if not file.is_file():
        raise UsageError(f"{file} is no file.", action="Give a CSV or Parquet file.")
    return file


def _say_table(session: Session, receipt: TableReceipt) -> None:
    stored = "nothing new" if receipt.unchanged else "stored"
    _say(session, receipt, f"{receipt.rows} rows of {receipt.patients} patients ({stored}).")


def _say(session: Session, receipt: OutcomesReceipt | TableReceipt, *lines: str) -> None:
    session.result(receipt.model_dump(), *lines)
    if not session.as_json:
        _print_findings(receipt.findings)
    if receipt.findings:
        raise InputError(f"{len(receipt.findings)} rows cannot be used.", action="See the findings above.")


def cases(session: Session, site: Annotated[str | None, typer.Option(help="Only this site's.")] = None) -> None:
    """List the cases and where they are on their way."""
    found = session.house().ingest.cases(site)
    session.table("Cases", ("case_id", "site", "state", "reasons"), [status.model_dump() for status in found])


def _row(case: str, receipt: CaseReceipt) -> dict[str, object]:
    findings = [f"{finding.code}: {finding.file}: {finding.message}" for finding in receipt.findings]
    return {"case": case, **receipt.model_dump(), "findings": findings}


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        print(f"  {finding.code}: {finding.file}: {finding.message} {finding.action}")
