"""``asdeg study``: the whole protocol on feature tables the user already has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from feature_store.errors import UsageError
from feature_store.vocabulary import PHANTOM_NOTICE, MissingPolicy
from infra.cli.command import command
from infra.cli.session import Session

RobustnessFile = Annotated[
    Path | None, typer.Option("--robustness", help="From `asdeg robustness`: unstable features go before selection.")
]
MinIcc = Annotated[float | None, typer.Option(min=0, max=1, help="Lowest ICC that stays.  [default: 0.75]")]
Icc = Annotated[
    Literal["icc_2_1", "icc_3_1"] | None, typer.Option(help="Agreement or consistency.  [default: icc_2_1]")
]
MaxCv = Annotated[float | None, typer.Option(min=0, help="Highest CV that stays.  [default: no limit]")]
Unmeasured = Annotated[
    Literal["keep", "drop"] | None, typer.Option(help="Features the file says nothing of.  [default: keep]")
]
Harmonise = Annotated[
    Literal["none", "combat"] | None,
    typer.Option(help="Scanners brought together in front of selection.  [default: none]"),
]
UnseenScanner = Annotated[
    Literal["as_is", "refuse"] | None,
    typer.Option(help="New patients of a scanner that training did not have, with combat.  [default: as_is]"),
]
MissingValues = Annotated[
    list[str] | None,
    typer.Option(
        "--missing-values",
        metavar="VARIABLE=POLICY",
        help="Of a clinical variable: median, most_frequent, indicator, category, complete or refuse; repeatable.",
    ),
]
Table = Annotated[Path | None, typer.Option(help="CSV or Parquet, one row a patient, with patient_id.")]


RayAddress = Annotated[
    str | None, typer.Option(help="Fit on all of that Ray cluster.  [default: on this machine's cores]")
]
Bootstraps = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=2000,
        help="Refits on redrawn patients, for an interval of each risk; each costs a permuted run, 100 to 200 are wise."
        "  [default: 0]",
    ),
]
Pdf = Annotated[bool, typer.Option("--pdf", help="Write report.pdf as well.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "study", example="asdeg study --radiomics rad.parquet --outcome outcome.csv --out results")(study)


def study(
    session: Session,
    outcome: Annotated[
        Path,
        typer.Option(
            help="patient_id, outcome (0/1), cohort (training, …); optionally site, incident, scanner, scanner:t2_sag."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder the results are written to; made if absent.")],
    radiomics: Table = None,
    deep: Table = None,
    clinical: Table = None,
    reads: Annotated[Path | None, typer.Option(help="Surgeons' readings: patient_id, A, B, C.")] = None,
    repeats: Annotated[Path | None, typer.Option(help="Repeated segmentations, for the ICC filter.")] = None,
    robustness: RobustnessFile = None,
    min_icc: MinIcc = None,
    icc: Icc = None,
    max_cv: MaxCv = None,
    unmeasured: Unmeasured = None,
    permutations: Annotated[int | None, typer.Option(min=0, help="Permuted-outcome runs.  [default: 20]")] = None,
    bootstraps: Bootstraps = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything that draws.  [default: 0]")] = None,
    grid: Annotated[Literal["quick", "standard"] | None, typer.Option(help="Grids.  [default: standard]")] = None,
    harmonisation: Harmonise = None,
    unseen_scanner: UnseenScanner = None,
    missing_values: MissingValues = None,
    nested_repeats: Annotated[
        int | None, typer.Option(min=1, help="Nested cross-validation, so many times.  [default: 1]")
    ] = None,
    leave_one_site_out: Annotated[bool, typer.Option(help="Judge each training site by the others as well.")] = False,
    ray_address: RayAddress = None,
    pdf: Pdf = False,
) -> None:
    """Run the study's whole protocol on feature tables.

    Writes metrics.json, predictions.parquet, report.html and the figures to --out. CSVs may have semicolons (and
    decimal commas) or tabs.
    """
    settings = session.settings.but(permutations=permutations, seed=seed, grid=grid, ray_address=ray_address)

    from infra.ray_spread import spread_of
    from models.report.headline import warnings_of
    from models.report.render import write_report
    from models.study import run_study
    from models.study_settings import StudySettings
    from models.study_tables import from_files
    from pipelines.radiomics.feature_docs import meaning

    filters = robustness_settings(min_icc, icc, max_cv, unmeasured, anything=bool(repeats or robustness))
    asked = harmonised(harmonisation, unseen_scanner)
    if bootstraps is not None:
        asked["bootstraps"] = bootstraps
    if nested_repeats is not None:
        asked["nested_repeats"] = nested_repeats
    chosen = StudySettings(
        seed=settings.seed,
        grid=settings.grid,
        permutations=settings.permutations,
        leave_one_site_out=leave_one_site_out,
        missing_values=missing_policies(missing_values or []),
        **filters,
        **asked,
    )
    tables = from_files(
        radiomics=radiomics,
        deep=deep,
        clinical=clinical,
        outcome=outcome,
        reads=reads,
        repeats=repeats,
        robustness=robustness,
    )
    with session.progress("study") as progress:
        result = run_study(tables, chosen, progress, spread_of(settings))
    report = write_report(result, out, "ASDeg study", meaning=meaning)
    if pdf:
        from models.report.pdf import write_pdf

        write_pdf(report)
    if session.as_json:
        session.json(result.metrics)
        return
    for warning in warnings_of(result):  # first: what must be known before a figure is believed
        session.note(f"Warning: {warning}")
    title = titled("Signatures", result.metrics.get("phantom", False))
    session.table(title, SUMMARY_COLUMNS, summary(result.metrics))
    check = result.metrics.get("leakage_check") or {}
    if check.get("permuted_auc_mean") is None:
        print(f"Leakage check not made: {check.get('reason', 'no permuted run')}")
    else:
        state = {True: "passed", False: "FAILED", None: "not judged (too few permuted runs)"}[check["passed"]]
        print(f"Leakage check {state}: mean AUC {check['permuted_auc_mean']:.3f} on permuted outcomes.")
    print(f"Report: {report}")


def missing_policies(written: list[str]) -> dict[str, MissingPolicy]:
    """``VARIABLE=POLICY``, several times. UsageError for anything else, or a variable named twice."""
    pairs = [entry.rpartition("=")[::2] for entry in written]
    for name, policy in pairs:
        if not name or policy not in get_args(MissingPolicy):
            raise UsageError(
                "--missing-values takes VARIABLE=POLICY.",
                action=f"Policies: {', '.join(get_args(MissingPolicy))}; for example bmi=indicator.",
            )
    policies = dict(pairs)
    if len(policies) < len(pairs):
        raise UsageError("--missing-values names a variable twice.", action="Give one policy a variable.")
    return policies  # type: ignore[return-value]


def robustness_settings(
    min_icc: float | None, icc: str | None, max_cv: float | None, unmeasured: str | None, *, anything: bool
) -> dict[str, Any]:
    """The filter's part of a study's settings. UsageError where there is nothing it could judge by."""
    given = {"icc_cutoff": min_icc, "icc_form": icc, "max_cv": max_cv, "unmeasured": unmeasured}
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen and not anything:
        raise UsageError(
            "--min-icc, --icc, --max-cv and --unmeasured judge measured features.",
            action="Give --robustness, which `asdeg robustness` writes.",
        )
    return chosen


def harmonised(harmonisation: str | None, unseen_scanner: str | None) -> dict[str, Any]:
    """The part of a study's settings that says how scanners are brought together, as far as it was asked for."""
    if unseen_scanner is not None and harmonisation != "combat":
        raise UsageError(
            "--unseen-scanner says what becomes of patients that harmonisation does not know.",
            action="Give --harmonisation combat as well, or leave it out.",
        )
    given = {"harmonisation": harmonisation, "unseen_scanner": unseen_scanner}
    return {name: value for name, value in given.items() if value is not None}


def titled(title: str, phantom: bool) -> str:
    """A table's title; of made-up patients it says so."""
    return f"{PHANTOM_NOTICE}\n{title}" if phantom else title


SUMMARY_COLUMNS = ("signature", "classifier", "features", "cohort", "n", "events", "auc", "interval")


def summary(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a signature and cohort of metrics.json; training has its nested AUC, without an interval."""
    rows = []
    for name, signature in metrics.get("signatures", {}).items():
        for cohort, figures in signature["cohorts"].items():
            interval = figures.get("auc_ci")
            rows.append(
                {
                    "signature": name,
                    "classifier": signature["classifier"],
                    "features": signature["n_features"],
                    "cohort": cohort if cohort != "training" else "training (nested)",
                    "n": figures["n"],
                    "events": figures["events"],
                    "auc": signature.get("nested_auc") if cohort == "training" else figures.get("auc"),
                    "interval": f"{interval[0]:.3f} to {interval[1]:.3f}"
                    if interval and interval[0] is not None
                    else None,
                }
            )
    return rows
