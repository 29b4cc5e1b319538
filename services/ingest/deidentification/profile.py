"""The Basic Application Level Confidentiality Profile: DICOM PS3.15, edition 2026c, table E.1-1.

``basic_profile.csv`` has a line for each row of the table: tag, name, and the action of the column "Basic Prof.":
X remove, Z empty, D replace by a dummy, U replace the UID consistently; with / where it depends on the object. An x
in a tag stands for any digit; ``private`` is every tag of an odd group.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from pydicom.tag import BaseTag

EDITION = "DICOM PS3.15 2026c"
PRIVATE = "private"


def action_of(tag: BaseTag) -> str:
    """What the profile wants done with an attribute; '' where it does not name it."""
    actions = basic_profile()
    if tag.is_private:
        return actions[PRIVATE]
    digits = f"{tag:08X}"
    for name in (digits, f"{digits[:2]}xx{digits[4:]}", f"{digits[:2]}xxxxxx"):
        if name in actions:
            return actions[name]
    return ""


@cache
def basic_profile() -> dict[str, str]:
    """Action by tag, as the file has them."""
    with files(__package__).joinpath("basic_profile.csv").open(encoding="utf-8") as file:
        return {row["tag"]: row["action"] for row in csv.DictReader(file)}
