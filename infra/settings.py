"""Every setting of the system, with its default, in one frozen object.

Order of precedence: default, then the environment (``ASDEG_STORE``, ``ASDEG_PORT``, …), then the command
line. An unknown ``ASDEG_*`` variable is refused: a misspelt setting that is silently ignored is worse than
a stop.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from feature_store.errors import SettingsError

PREFIX = "ASDEG_"
NO_SETTINGS = frozenset({"ASDEG_SHARED_DATA"})
"""Variables that are not the system's: where the tests find real images."""


class Settings(BaseModel):
    """What may differ between two installations. Sizes and times carry their unit in the name."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # where things are
    store: str = Field("./asdeg-store", description="URI of the feature store: a folder or s3://bucket/prefix")
    control: str = Field("", description="URL of the control database; empty: SQLite beside the store")
    ray_address: str = Field("", description="address of a Ray cluster; empty: Ray is started in-process")
    inbox: str = Field(
        "", description="folder of uploads under way, shared by all replicas; empty: beside the store, STORE-inbox"
    )
    cache: str = Field("", description="folder for copies of a remote store's files; empty: the temporary folder")

    # the door
    host: str = Field("127.0.0.1", description="interface the HTTP door listens on; loopback by default")
    port: int = Field(8000, ge=1, le=65535, description="port of the HTTP door")
    proxy: Literal["haproxy", "ray"] = Field("haproxy", description="what stands at the door: HAProxy or Ray's own")
    upload_limit_mb: int = Field(8_192, ge=1, description="largest upload, in MB")
    unpacked_limit_mb: int = Field(32_768, ge=1, description="largest unpacked upload, in MB")
    upload_entries: int = Field(20_000, ge=1, description="most files in one upload")
    site_quota_mb: int = Field(65_536, ge=1, description="what one site's uploads under way may take, in MB")
    upload_hours: float = Field(48.0, gt=0, description="hours an upload is kept that nobody goes on with")
    body_limit_mb: int = Field(16, ge=1, description="largest request that is no upload, in MB")
    requests_per_minute: int = Field(1200, ge=1, description="how often a key may ask a replica for cases")

    # who the patients are
    pseudonym_key_file: str = Field("", description="file with the site's pseudonym key, at the site's side")
    pseudonym_keys: str = Field("", description="folder with SITE.key for each site, at the services' side")

    # the DICOM doors
    dicom_sites: str = Field("", description="YAML file that says which AE titles are whose; empty: no C-STORE")
    dicom_port: int | None = Field(None, ge=0, le=65535, description="port for C-STORE; empty: `serve` takes none")
    dicom_staging: str = Field(
        "", description="folder of instances not yet cases; empty: beside the store, STORE-dicom"
    )
    dicom_staging_limit_gb: float = Field(200.0, gt=0, description="what that folder may take, in GiB")
    dicom_quiet_seconds: float = Field(120.0, ge=0, description="a study is complete after so long without an instance")
    dicom_keep_hours: float = Field(336.0, ge=0, description="hours instances are kept for what comes late")
    dicom_instance_limit_mb: int = Field(512, ge=1, description="largest DICOM instance, in MB")
    dicom_associations: int = Field(10, ge=1, description="most associations at once")
    dicom_requests_at_once: int = Field(8, ge=1, description="DICOMweb requests of one site a replica is at")
    dicom_timeout_seconds: float = Field(60.0, gt=0, description="seconds of silence that end an association")
    dicom_tls_certificate: str = Field("", description="certificate of the C-STORE door; empty: no TLS")
    dicom_tls_key: str = Field("", description="its key, where it is not in the same file")
    dicom_tls_authority: str = Field("", description="certificates of whom peers must have theirs; empty: need none")

    # the services
    num_cpus: int | None = Field(None, ge=1, description="CPUs Ray may use in-process; empty: all")
    num_gpus: int | None = Field(None, ge=0, description="GPUs extraction may use; empty: all there are")
    cases_at_once: int = Field(2, ge=1, description="pushed cases an ingest replica has read at a time")
    case_time_limit: float = Field(1800.0, gt=0, description="seconds the reading of one pushed case may take")
    case_memory_gb: float = Field(16.0, gt=0, description="memory the reading of one pushed case may take, in GiB")
    auto_extract: bool = Field(True, description="extract what is pushed over HTTP without being asked")
    auto_extract_encoder: str = Field("vit_small", description="name or id of the encoder for that, or none")
    roi_time_limit: float = Field(900.0, gt=0, description="seconds a step of one ROI may take before it is given up")
    roi_memory_gb: float = Field(8.0, gt=0, description="memory a step of one ROI may take in its worker, in GiB")
    scoring_replicas: int = Field(1, ge=1, description="processes that answer scores")
    ingest_replicas: int = Field(1, ge=1, description="processes that take cases in")
    score_flush_seconds: float = Field(5.0, gt=0, description="kept answers reach the table at least this often")
    score_flush_count: int = Field(200, ge=1, description="or as soon as this many are waiting")

    # the study
    grid: Literal["quick", "standard"] = Field("standard", description="hyper-parameter grids of the classifiers")
    permutations: int = Field(20, ge=0, description="permuted-outcome runs of the leakage check")
    seed: int = Field(0, ge=0, description="seed of everything that draws")

    # what is said about it
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    debug: bool = Field(False, description="show tracebacks")

    def but(self, **values: Any) -> Settings:
        """These settings with others in some places (None means: not given). Raises SettingsError."""
        return _build({**self.model_dump(), **{name: value for name, value in values.items() if value is not None}})

    @field_validator("store")
    @classmethod
    def _absolute(cls, value: str) -> str:
        # Workers run elsewhere than the command that named a relative folder.
        if "://" in value:
            return value.rstrip("/")
        return str(Path(value).expanduser().resolve())

    @field_validator("pseudonym_key_file", "pseudonym_keys")
    @classmethod
    def _absolute_if_any(cls, value: str) -> str:
        return str(Path(value).expanduser().absolute()) if value else ""


def load_settings(environ: Mapping[str, str] | None = None, **command_line: Any) -> Settings:
    """Settings from defaults < environment < command line (None there means: not given).

    Raises SettingsError, naming the setting, for an unknown ``ASDEG_*`` variable or a value outside its range.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {
        name.removeprefix(PREFIX).lower(): text
        for name, text in environ.items()
        if name.startswith(PREFIX) and name not in NO_SETTINGS
    }
    values.update({name: value for name, value in command_line.items() if value is not None})
    return _build(values)


def _build(values: dict[str, Any]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            known = ", ".join(PREFIX + field.upper() for field in Settings.model_fields)
            raise SettingsError(
                f"{PREFIX}{name.upper()} is no setting.", action=f"Unset it; there are {known}."
            ) from None
        raise SettingsError(
            f"{name}: {first['msg']}.", action=f"Mend {PREFIX}{name.upper()} or the option on the command line."
        ) from None
