"""What a label number of a mask stands for, as a site or a label map writes it down."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from feature_store.vocabulary import ALL, DISCS, STRUCTURES, UNKNOWN, VERTEBRAE, Side, StructureKind
from pipelines.cases.rois import LabelName
from pipelines.imaging.masks import LARGEST_LABEL

LabelNumber = Annotated[int, Field(ge=1, le=LARGEST_LABEL)]


class Strict(BaseModel):
    """No unknown key, no guessed type, and no value in an error's text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


def one_of(*allowed: str) -> AfterValidator:
    """A validator of text that must be one of these words."""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return AfterValidator(check)


class LabelMeaning(Strict):
    """What a label number stands for."""

    structure: Annotated[str, one_of(*STRUCTURES)]
    level: str = UNKNOWN
    side: Annotated[str, one_of(*Side)] = Side.BOTH.value

    @field_validator("level")
    @classmethod
    def _level_of_its_kind(cls, value: str, info: ValidationInfo) -> str:
        kind = STRUCTURES.get(info.data.get("structure", ""))
        levels = {StructureKind.BONE: VERTEBRAE, StructureKind.DISC: DISCS}.get(kind, (*VERTEBRAE, *DISCS))  # type: ignore[arg-type]
        if value not in (*levels, ALL, UNKNOWN):
            example = "a disc such as L4-L5" if kind is StructureKind.DISC else "a vertebra such as L5"
            raise ValueError(f"must be {example}, {ALL} or {UNKNOWN}")
        return value

    @property
    def label_name(self) -> LabelName:
        return LabelName(self.structure, self.level, self.side)
