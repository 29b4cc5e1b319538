"""What an artefact holds, as files: settings.json, arrays.safetensors, estimator.skops."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from feature_store.errors import BlobCorrupt
from models.classifiers import Configuration
from models.clinical_columns import ClinicalEncoder, ClinicalVariable, EncodedVariable
from models.combined import CombinedSignature, Stack
from models.harmonisation import Harmoniser
from models.scale import Scale
from models.scanners import Harmonisation
from models.selection.scaling import Scaling
from models.selection.selector import Selector
from models.signature import Head, Signature

FORMAT = 2
"""Written. Format 1 knew neither policies of missing values nor scanners of single sequences."""
READABLE = (1, FORMAT)
BOOTSTRAP = "bootstrap-{:04d}."
"""Files of a refit on redrawn patients begin so. One of a combined signature names no signs: they are the refits of its
signs on the same draw, kept with these."""
SCALING = ("medians", "centre", "scale", "mean", "sd")
TRUSTED = [
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
]
"""Types beyond skops' own list that the fourteen classifiers are made of."""

Arrays = dict[str, NDArray[np.float64]]
Payload = dict[str, bytes]


def to_payload(artefact: Selector | Signature | CombinedSignature, signs: dict[str, str]) -> Payload:
    """Files of an artefact; ``signs``: content hash of each sign a combined signature is stacked on."""
    if isinstance(artefact, Selector):
        settings, arrays = _of_selector(artefact)
        return _files({"format": FORMAT, "kind": "selector", "selector": settings}, arrays)
    if isinstance(artefact, Signature):
        settings, arrays = _of_selector(artefact.selector)
        own: dict[str, Any] = {"selector": settings}
        if artefact.harmoniser is not None:
            own["harmoniser"], lines = _of_harmonisation(artefact.harmoniser)
            arrays |= lines
    else:
        own, arrays = _of_stack(artefact.stack)
        own = {"stack": own, "signs": signs}
    refits: Sequence[Signature | CombinedSignature] = artefact.bootstraps
    if refits:
        own["bootstraps"] = len(refits)
    head = _of_head(artefact.head)
    files = _files({"format": FORMAT, "kind": artefact.kind, "head": head, **own}, arrays)
    files["estimator.skops"] = dump_estimator(artefact.head.estimator)
    for draw, refit in enumerate(refits):
        files |= {BOOTSTRAP.format(draw) + name: data for name, data in to_payload(refit, {}).items()}
    return files


def from_payload(payload: Payload, signs: dict[str, Signature]) -> Selector | Signature | CombinedSignature:
    """The artefact of these files. BlobCorrupt where they hold a type that is not listed."""
    settings = json.loads(payload["settings.json"])
    arrays = load_arrays(payload["arrays.safetensors"])
    if settings["kind"] == "selector":
        return _to_selector(settings["selector"], arrays)
    head = _to_head(settings["head"], load_estimator(payload["estimator.skops"]))
    refits = tuple(_refit(payload, signs, draw) for draw in range(settings.get("bootstraps", 0)))
    if settings["kind"] == "combined":
        return CombinedSignature(signs, _to_stack(settings["stack"], arrays), head, bootstraps=refits)
    selector = _to_selector(settings["selector"], arrays)
    harmoniser = _to_harmonisation(settings.get("harmoniser"), selector, arrays)
    return Signature(settings["kind"], selector, head, harmoniser, refits)


def _refit(payload: Payload, signs: dict[str, Signature], draw: int) -> Any:
    """A bootstrap: files of its own, and the signs of the same draw."""
    begin = BOOTSTRAP.format(draw)
    own = {name.removeprefix(begin): data for name, data in payload.items() if name.startswith(begin)}
    return from_payload(own, {kind: sign.bootstraps[draw] for kind, sign in signs.items()})


def dump_estimator(estimator: Any) -> bytes:
    """skops' archive, with numbers in order where it has addresses in memory, and files named by content."""
    import skops.io

    original = zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator)))
    schema = json.loads(original.read("schema.json"))
    contents: Payload = {}
    numbered = iter(range(1, 1 << 60))

    def rewrite(node: Any) -> Any:
        if isinstance(node, list):
            return [rewrite(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = {key: rewrite(value) for key, value in node.items()}
        if isinstance(node.get("__id__"), int):
            node["__id__"] = next(numbered)
        if isinstance(node.get("file"), str) and node["file"] in original.namelist():
            data = original.read(node["file"])
            name = f"{sha256(data).hexdigest()}{node['file'][node['file'].rindex('.') :]}"
            contents[name], node["file"] = data, name
        return node

    contents["schema.json"] = json.dumps(rewrite(schema)).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name), contents[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def load_estimator(data: bytes) -> Any:
    """The estimator; BlobCorrupt where the archive holds a type that is not listed, before anything is made of it."""
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.loads(data, trusted=TRUSTED)
    except UntrustedTypesFoundException as error:
        raise BlobCorrupt("The estimator holds types that are not trusted.", action="Train it again.") from error


def _files(settings: dict[str, Any], arrays: Arrays) -> Payload:
    contiguous = {name: np.ascontiguousarray(value, dtype=np.float64) for name, value in arrays.items()}
    text = json.dumps(settings, sort_keys=True, allow_nan=False, indent=1)
    return {"settings.json": text.encode(), "arrays.safetensors": save_arrays(contiguous)}


def _of_selector(selector: Selector) -> tuple[dict[str, Any], Arrays]:
    arrays = {name: getattr(selector.scaling, name) for name in SCALING}
    arrays["coefficients"] = selector.coefficients
    if selector.projection is not None:
        arrays["projection"] = selector.projection
    return {
        "recipe": selector.recipe,
        "columns": list(selector.columns),
        "names": list(selector.names),
        "lambda": selector.lambda_,
        "clip": selector.scaling.clip,
    }, arrays


def _to_selector(settings: dict[str, Any], arrays: Arrays) -> Selector:
    medians, centre, scale, mean, sd = (arrays[name] for name in SCALING)
    scaling = Scaling(medians, centre, scale, mean, sd, settings["clip"])
    return Selector(
        settings["recipe"],
        tuple(settings["columns"]),
        scaling,
        tuple(settings["names"]),
        arrays["coefficients"],
        settings["lambda"],
        arrays.get("projection"),
    )


def _of_harmonisation(harmonisation: Harmonisation) -> tuple[list[dict[str, Any]], Arrays]:
    parts = [
        {"by": p.by, "columns": list(p.names), "batches": list(p.batches), "few": list(p.few), "unseen": p.unseen}
        for p in harmonisation.parts
    ]
    slopes = {f"combat_slope_{i}": part.slope for i, part in enumerate(harmonisation.parts)}
    offsets = {f"combat_offset_{i}": part.offset for i, part in enumerate(harmonisation.parts)}
    return parts, slopes | offsets


def _to_harmonisation(settings: Any, selector: Selector, arrays: Arrays) -> Harmonisation | None:
    if settings is None:
        return None
    if isinstance(settings, dict):  # format 1: one scanner for all columns
        lines = arrays["combat_slope"], arrays["combat_offset"]
        parts = [Harmoniser(selector.columns, tuple(settings["batches"]), *lines, settings["unseen"])]
    else:
        parts = [
            Harmoniser(
                tuple(part["columns"]),
                tuple(part["batches"]),
                arrays[f"combat_slope_{i}"],
                arrays[f"combat_offset_{i}"],
                part["unseen"],
                tuple(part["few"]),
                part["by"],
            )
            for i, part in enumerate(settings)
        ]
    return Harmonisation(selector.columns, tuple(parts))


def _of_stack(stack: Stack) -> tuple[dict[str, Any], Arrays]:
    variables = [
        {
            **asdict(e.variable),
            "fill": e.fill,
            "levels": list(e.levels),
            "marked": e.marked,
        }
        for e in stack.encoder.encoded
    ]
    required = [asdict(variable) for variable in stack.encoder.required]
    arrays = {"centre": stack.centre, "mean": stack.mean, "sd": stack.sd}
    return {"signs": list(stack.signs), "variables": variables, "required": required}, arrays


def _to_stack(settings: dict[str, Any], arrays: Arrays) -> Stack:
    encoded = tuple(
        EncodedVariable(_to_variable(v), v["fill"], tuple(v["levels"]), v.get("marked", False))
        for v in settings["variables"]
    )
    encoder = ClinicalEncoder(encoded, tuple(_to_variable(v) for v in settings.get("required", ())))
    return Stack(tuple(settings["signs"]), encoder, arrays["centre"], arrays["mean"], arrays["sd"])


def _to_variable(settings: dict[str, Any]) -> ClinicalVariable:
    return ClinicalVariable(**{name: settings[name] for name in ("name", "kind", "high", "low")})


def _of_head(head: Head) -> dict[str, Any]:
    return {
        "classifier": head.configuration.classifier,
        "params": {key: list(v) if isinstance(v, tuple) else v for key, v in head.configuration.params.items()},
        "scale": [head.scale.slope, head.scale.intercept, head.scale.flat],
        "calibration": [head.calibration.slope, head.calibration.intercept, head.calibration.flat],
        "threshold": head.threshold,
        "harm_threshold": head.harm_threshold,
    }


def _to_head(settings: dict[str, Any], estimator: Any) -> Head:
    params = {key: tuple(v) if isinstance(v, list) else v for key, v in settings["params"].items()}
    return Head(
        Configuration(settings["classifier"], params),
        estimator,
        Scale(*settings["scale"]),
        Scale(*settings["calibration"]),
        settings["threshold"],
        settings["harm_threshold"],
    )
