"""Identifiers that occur nowhere else, one for each place, and where they are found again."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from pydicom.dataset import Dataset

TEXTS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
BYTES = ("OB", "OW", "UN", "OB or OW", "OL", "OD", "OF", "OV")
NUMBERS = ("US", "SS", "UL", "SL", "UV", "SV", "US or SS", "US or OW", "US or SS or OW")
_EPOCH = date(1931, 1, 1)


@dataclass
class Planted:
    """What was planted where: bytes to look for, by place."""

    needles: dict[str, bytes] = field(default_factory=dict)

    def token(self, place: str) -> str:
        """Ten letters and digits that every text VR can hold."""
        token = f"ZQ{len(self.needles):06d}KX"
        self.needles[place] = token.encode()
        return token

    def day(self, place: str) -> date:
        """A day of its own between 1931 and 1970."""
        day = _EPOCH + timedelta(days=len(self.needles))
        self.needles[place] = f"{day:%Y%m%d}".encode()
        return day

    def value(self, place: str, vr: str) -> Any:
        """A value of that VR which names its place, and is looked for in the VR's own bytes."""
        number = len(self.needles)
        if vr in TEXTS:
            return self.token(place)
        if vr in BYTES:
            return self.token(place).encode()
        if vr in ("DA", "DT"):
            day = self.day(place)
            return f"{day:%Y%m%d}" if vr == "DA" else f"{day:%Y%m%d}101112.{number:06d}"
        text: dict[str, Any] = {
            "TM": f"1{number % 10}{number // 10 % 6}{number % 10}{number // 60 % 6}{number % 10}.{471000 + number}",
            "UI": f"1.2.826.0.1.4711.{900000 + number}.1",
            "DS": f"471.{100000 + number}",
            "IS": str(470000000 + number),
        }
        if vr in text:
            self.needles[place] = text[vr].encode()
            return text[vr]
        if vr in ("FD", "FL"):
            value = 4711.0 + number / 8
            self.needles[place] = struct.pack("<d" if vr == "FD" else "<f", value)
            return value
        if vr == "AS":
            return f"{number % 900 + 100:03d}Y"  # four bytes: looked for by tag
        return 47000 + number % 900 if vr not in ("SS", "SL", "SV") else -20000 - number % 900  # likewise

    def found(self, data: bytes) -> list[str]:
        """The places whose identifier is in the bytes, in either case of its letters."""
        lower = data.lower()
        return [place for place, needle in self.needles.items() if needle in data or needle.lower() in lower]


def every_element(dataset: Dataset, above: str = "") -> list[tuple[str, Any]]:
    """Each element at any depth: path of keywords or tags, and the element."""
    found = []
    for element in dataset:
        path = f"{above}/{element.keyword or element.tag}"
        found.append((path, element))
        if element.VR == "SQ":
            for item in element.value:
                found += every_element(item, path)
    return found
