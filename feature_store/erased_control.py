"""What the control database has of a patient: deleted, but for the audit log, which forgets whom rows were about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection

from sqlalchemy import delete, or_, select

from feature_store.audit import AuditLog
from feature_store.control import ControlDatabase, Credential
from feature_store.control_tables import AuditRow, Base, ScoreRow


def forget_patient(
    control: ControlDatabase, by: Credential, site: str, patient_id: str, case_ids: Collection[str], erasure: str
) -> Counter[str]:
    """Delete the patient's rows of every table, and what the deleted left in the files; rows that went, by table.

    Every table that has ``patient_id``, or ``case_id``, is looked through, so that a new one is not forgotten.
    """
    gone: Counter[str] = Counter()
    cases = {*case_ids, *(case.case_id for case in control.cases(site) if case.patient_id == patient_id)}
    with control.writing() as connection:
        for table in Base.metadata.sorted_tables:
            named = [table.c[name] for name in ("patient_id", "case_id") if name in table.c]
            if table.name == AuditRow.__tablename__ or not named:
                continue
            about = [column == patient_id if column.name == "patient_id" else column.in_(cases) for column in named]
            statement = delete(table).where(or_(*about))
            if "site" in table.c:
                statement = statement.where(table.c.site == site)
            gone[table.name] += connection.execute(statement).rowcount
        scores = connection.execute(select(ScoreRow.id, ScoreRow.row)).all()
        mine = [number for number, kept in scores if _is_of(kept, site, patient_id)]
        gone[ScoreRow.__tablename__] += len(mine)
        connection.execute(delete(ScoreRow).where(ScoreRow.id.in_(mine)))
    forgotten, _ = AuditLog(control).forget(by, site, patient_id, cases, erasure=erasure)
    gone[AuditRow.__tablename__] += forgotten
    gone = +gone
    if gone:
        control.wipe()
    return gone


def _is_of(kept: str, site: str, patient_id: str) -> bool:
    row = json.loads(kept)
    return (row.get("site"), row.get("patient_id")) == (site, patient_id)
