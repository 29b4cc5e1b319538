"""What a cohort is to be: read from ``cohort.yaml``, frozen, unknown keys refused."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_store.errors import SettingsError
from feature_store.labels import MIN_DAYS
from feature_store.vocabulary import PAPER_SEQUENCES, InSample, MissingPolicy


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Inclusion(_Settings):
    """A patient must match; a value that is not known does not exclude."""

    surgical_segments: tuple[int, ...] = (1, 2, 3)
    procedures: tuple[str, ...] = Field((), description="none named: any procedure")
    follow_up_days: int = Field(
        MIN_DAYS,
        ge=0,
        description="the window: patients followed for less are not members, positive or not (positives arrive early)",
    )


class Exclusion(_Settings):
    """A patient must not match; a value that is not known does not exclude."""

    prior_surgery: bool = True
    infection_or_tumour: bool = True
    image_quality: tuple[str, ...] = ("poor",)


class LockedTest(_Settings):
    """Who is set aside for one last look: no gate and no report uses them (partition ``locked_test``).

    Patients are not named one by one: the settings are kept with every run, and an id would outlive its erasure there.
    """

    share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of the patients of the other internal sites, within each outcome, drawn by the seed",
    )
    sites: tuple[str, ...] = Field((), description="sites of which everybody is set aside")


class CohortSettings(_Settings):
    """``ratio`` is the share of training among the patients of internal sites, within each outcome."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    external_sites: tuple[str, ...] = ()
    ratio: float = Field(0.7, gt=0, lt=1)
    seed: int = 0
    min_days: int = Field(MIN_DAYS, ge=1, description="setting of the label rule")
    locked_test: LockedTest = LockedTest()
    inclusion: Inclusion = Inclusion()
    exclusion: Exclusion = Exclusion()
    feature_sets: tuple[str, ...] = Field(
        (), description="feature sets and encoders to use; none: all that are current"
    )
    sequences: tuple[str, ...] = Field(PAPER_SEQUENCES, description="sequences to use")
    missing_values: dict[str, MissingPolicy] = Field(
        default_factory=dict,
        description="clinical variable to what becomes of who lacks it; not named: the median or most frequent value",
    )
    in_sample_encoder: InSample = Field(
        "leave_out",
        description="patients to whose outcomes an encoder was tuned: leave_out, refuse, or apparent (they stay, and "
        "training figures are apparent)",
    )

    @model_validator(mode="after")
    def _one_partition_a_site(self) -> CohortSettings:
        if both := sorted(set(self.external_sites) & set(self.locked_test.sites)):
            raise ValueError(f"{', '.join(both)} cannot be external and locked")
        return self

    @classmethod
    def load(cls, path: Path) -> CohortSettings:
        """Read ``cohort.yaml``. Raises SettingsError naming the keys that are wrong."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        except (yaml.YAMLError, UnicodeDecodeError):
            wrong = "it is no YAML"
        except OSError:
            wrong = "it cannot be read"
        raise SettingsError(
            f"The cohort's settings cannot be used: {wrong}.",
            action=f"Known keys: {', '.join(cls.model_fields)}.",
            file=path.name,
        )
