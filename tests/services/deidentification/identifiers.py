"""Identifiers that occur nowhere else, one for each place, and where they are found again."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from pydicom.datadict import DicomDictionary, RepeatersDictionary
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from services.ingest.deidentification.kept import NUMBERS

TEXTS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
BYTES = ("OB", "OW", "UN", "OB or OW", "OL", "OD", "OF", "OV")
NOT_SEARCHED = ("SQ", "NONE", "", "AT")
MAKE_IT_AN_IMAGE = {
    "PixelData", "SOPClassUID", "PhotometricInterpretation", "Modality", "BurnedInAnnotation",
    "RecognizableVisualFeatures",
}  # fmt: skip
_TOKEN = re.compile(rb"ZQ\d{6}KX")
_EPOCH = date(1931, 1, 1)


@dataclass
class Planted:
    """What was planted where: bytes to look for, by place."""

    needles: dict[str, bytes] = field(default_factory=dict)
    first: int = 0
    """Two of these have no identifier in common where their numbers lie apart."""

    def token(self, place: str) -> str:
        """Ten letters and digits that every text VR can hold."""
        assert place not in self.needles, place
        token = f"ZQ{self.first + len(self.needles):06d}KX"
        self.needles[place] = token.encode()
        return token

    def day(self, place: str) -> date:
        """A day of its own between 1931 and 1970."""
        day = _EPOCH + timedelta(days=self.first + len(self.needles))
        self.needles[place] = f"{day:%Y%m%d}".encode()
        return day

    def value(self, place: str, vr: str) -> Any:
        """A value of that VR which names its place, and is looked for in the VR's own bytes."""
        assert place not in self.needles, place
        number = self.first + len(self.needles)
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
        if vr == "FD":
            value = 4711.0 + number / 8
            self.needles[place] = struct.pack("<d", value)
            return value
        if vr == "FL":
            return 4711.0 + number / 8  # too short to be told from chance
        if vr == "AS":
            return f"{number % 900 + 100:03d}Y"  # four bytes: looked for by tag
        return 47000 + number % 900 if vr not in ("SS", "SL", "SV") else -20000 - number % 900  # likewise

    def fill(self, dataset: Dataset, where: str, skip: Collection[str] = ()) -> None:
        """Every attribute of the standard's dictionary but sequences, pixels and kept numbers."""
        kept = {*NUMBERS.split(), *MAKE_IT_AN_IMAGE, *skip}
        for number, (vr, _, _, _, keyword) in DicomDictionary.items():
            tag = Tag(number)
            if tag.group >= 8 and tag.group not in (0x7FE0, 0xFFFE) and vr not in NOT_SEARCHED and keyword not in kept:
                dataset.add_new(tag, vr.split(" or ")[0], self.value(f"{where}{tag} {keyword}", vr))
        for mask, (vr, _, _, _, keyword) in RepeatersDictionary.items():
            tag = Tag(int(mask.replace("x", "0"), 16) | (0x020000 if mask[2:4] == "xx" else 0))
            if tag.group >= 0x5000 and vr not in NOT_SEARCHED and keyword != "OverlayBitPosition":
                dataset.add_new(tag, vr.split(" or ")[0], self.value(f"{where}{tag} {keyword}", vr))

    def fill_private(self, dataset: Dataset, where: str, inner: Dataset) -> None:
        """Private blocks with an element of each kind."""
        for block, vr in enumerate(("LO", "UN", "OB", "DA", "SQ", "DS"), start=0x10):
            group = 0x0011 + 2 * block
            dataset.add_new((group, 0x0010), "LO", self.token(f"{where}private creator {group:04x}"))
            dataset.add_new((group, 0x1001), vr, [inner] if vr == "SQ" else self.value(f"{where}private {vr}", vr))

    def found(self, data: bytes) -> list[str]:
        """The places whose identifier is in the bytes, in either case of its letters."""
        tokens = set(_TOKEN.findall(data.upper()))
        return [
            place
            for place, needle in self.needles.items()
            if (needle in tokens if _TOKEN.fullmatch(needle) else needle in data)
        ]


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
