# ruff: noqa: E402 (threads are limited before NumPy is imported)
"""Radiomics against stock PyRadiomics: time and values, both measured in this run, one thread each.

    python tests/benchmarks/radiomics.py --image ct.nii.gz --mask labels.nii.gz --labels 27,28 --json
    python tests/benchmarks/radiomics.py                     a table over the named real images

Stock is ``RadiomicsFeatureExtractor.execute`` on the whole image, once an ROI, with the same settings and 851
features; ours is the crop and the extraction of the same ROI. Both run once before the clock starts (ours
compiles its kernels then). ``cpu_ratio`` and ``wall_ratio`` are stock's time over ours, summed over the ROIs.

The real images are those of the shared data folder, and the lung, brain and breast cases of the source distribution
of pyradiomics 3.0.1. That is downloaded by pip into the user's cache folder (``~/.cache/asdeg``) the first time, or
taken from where ``PYRADIOMICS_SDIST`` says it is unpacked; where neither works its cases are left out, with a note.
``--cases TEXT`` (may be repeated) takes only the cases whose name contains the text. JSON has the five figures
of ``FIGURES``; ``--details`` adds seconds, what each ROI took, and the features outside 1e-9.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import json
import logging
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

REPOSITORY = Path(__file__).resolve().parents[2]
# this file has the name of the library it measures: its folder must not be looked in first
sys.path[:] = [str(REPOSITORY), *(p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent)]

from feature_store.errors import AsdegError
from pipelines.imaging.images import read_image
from pipelines.imaging.masks import align_mask, read_mask
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_set_choice import feature_set
from pipelines.radiomics.feature_sets import REGISTRY, FeatureSet
from pipelines.radiomics.preprocessing import preprocess, preprocess_mask
from pipelines.radiomics.series import RadiomicsSeries

TOLERANCE = 1e-9
FIGURES = ("cpu_ratio", "wall_ratio", "values", "within_1e9", "bit_identical")


def stock_extractor(settings: FeatureSet) -> Any:
    """Stock PyRadiomics with the settings of a feature set whose preprocessing is already done."""
    from radiomics import featureextractor

    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"binWidth": settings.bin_width, "voxelArrayShift": settings.voxel_array_shift}
    if settings.bin_count is not None:
        options["binCount"] = settings.bin_count
    extractor = featureextractor.RadiomicsFeatureExtractor(**options)
    extractor.disableAllImageTypes()
    if "original" in settings.image_types:
        extractor.enableImageTypeByName("Original")
    if "wavelet" in settings.image_types:
        extractor.enableImageTypeByName("Wavelet")
    if "log" in settings.image_types:
        extractor.enableImageTypeByName("LoG", customArgs={"sigma": list(settings.log_sigma)})
    return extractor


def stock_values(extractor: Any, image: sitk.Image, mask: sitk.Image, label: int, names: tuple[str, ...]) -> Any:
    result = extractor.execute(image, mask, label=label)
    return np.array([float(result[name]) for name in names])


def compare(ours: np.ndarray, stock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which values are equal to the last bit, and which within a relative 1e-9 (NaN equals NaN)."""
    identical = (ours == stock) | (np.isnan(ours) & np.isnan(stock))
    with np.errstate(all="ignore"):
        near = np.abs(ours - stock) <= TOLERANCE * np.abs(stock)
    return identical, identical | near


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def measure(
    image: sitk.Image, mask: sitk.Image, labels: list[int], settings: FeatureSet, repeat: int = 3
) -> dict[str, Any]:
    """Both sides on every label; ours is the median of ``repeat`` goes, stock one."""
    image, mask = preprocess(image, settings), preprocess_mask(mask, settings)
    voxels = sitk.GetArrayFromImage(mask)
    ours = RadiomicsExtractor(settings)
    stock = stock_extractor(settings)

    def extract(label: int) -> np.ndarray:
        series = RadiomicsSeries(sitk.GetArrayViewFromImage(image), image.GetSpacing(), settings)
        return ours.extract_from_crop(series.crop(voxels == label))

    totals = np.zeros(4)
    values = near = identical = 0
    off: dict[str, float] = {}
    rois = []
    for label in labels:
        extract(label)
        goes = [_timed(lambda label=label: extract(label)) for _ in range(repeat)]
        mine = goes[0][0]
        cpu, wall = (float(np.median([go[i] for go in goes])) for i in (1, 2))
        theirs, stock_cpu, stock_wall = _timed(
            lambda label=label: stock_values(stock, image, mask, label, settings.feature_names)
        )
        same, close = compare(mine, theirs)
        values, near, identical = values + len(mine), near + int(close.sum()), identical + int(same.sum())
        for k in np.flatnonzero(~close):
            off[settings.feature_names[k]] = abs(mine[k] - theirs[k]) / abs(theirs[k])
        totals += (stock_cpu, cpu, stock_wall, wall)
        rois.append({"label": label, "voxels": int((voxels == label).sum()), "cpu_s": cpu, "stock_cpu_s": stock_cpu})
    return {
        "cpu_ratio": totals[0] / totals[1],
        "wall_ratio": totals[2] / totals[3],
        "values": values,
        "within_1e9": near,
        "bit_identical": identical,
        "cpu_s": totals[1],
        "stock_cpu_s": totals[0],
        "feature_set": settings.id,
        "rois": rois,
        "outside": off,
    }


Case = tuple[sitk.Image, sitk.Image, list[int], FeatureSet]


def named_cases(data: Path) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Name and how to load it: the real images, a phantom of the size of a sagittal MR, and the largest ROI."""
    default, mr = REGISTRY["pyradiomics-default"], REGISTRY["study-mr"]
    spine = data / "spine"

    def pair(image: str, mask: str) -> tuple[sitk.Image, sitk.Image]:
        series = read_image(spine / image)
        return series, align_mask(read_mask(spine / mask), series)

    def ct_dicom() -> tuple[sitk.Image, sitk.Image]:
        return pair("ct_dicom/series", "ct_dicom/seg.nii.gz")

    def large() -> Case:
        ct, mask = ct_dicom()
        return ct, _dilated(mask, bones, 500_000), [1], default

    lumbar = ("ct_lumbar/ct.nii.gz", "ct_lumbar/totalsegmentator_seg.nii.gz")
    t2 = ("t2_single_disc/sub-mri_label-6_T2w.nii.gz", "t2_single_disc/sub-mri_seg-vert_label-6_msk.nii.gz")
    slab = ("mr_axial_slab/mr.nii.gz", "mr_axial_slab/seg.nii.gz")
    vertebra = (
        "ct_single_vertebra/sub-ct_label-22_ct.nii.gz",
        "ct_single_vertebra/sub-ct_seg-vert_label-22_msk.nii.gz",
    )
    muscles = ("axial_muscles/TUM01_water.nii.gz", "axial_muscles/TUM01_muscles_seg.nii.gz")
    bones = [32, 33, 86, 87]
    yield "ct_dicom", lambda: (*ct_dicom(), bones, default)
    yield "ct_dicom, 32 bins", lambda: (*ct_dicom(), bones, REGISTRY["study-ct-32bins"])
    yield "ct_dicom, LoG", lambda: (*ct_dicom(), bones[:2], REGISTRY["study-ct-log"])
    yield "ct_dicom, 1 mm", lambda: (*ct_dicom(), bones[:2], REGISTRY["study-ct-1mm"])
    yield "ct_lumbar", lambda: (*pair(*lumbar), [27, 31, 86], default)
    yield "ct_lumbar, LoG", lambda: (*pair(*lumbar), [27, 31, 86], REGISTRY["study-ct-log"])
    yield "t2_single_disc", lambda: (*pair(*t2), [5, 6, 105], mr)
    yield "t2_single_disc, LoG", lambda: (*pair(*t2), [5, 6, 105], REGISTRY["study-mr-log"])
    yield "t2_single_disc, 1 mm", lambda: (*pair(*t2), [5, 6, 105], REGISTRY["study-mr-1mm"])
    yield "mr_axial_slab", lambda: (*pair(*slab), [19, 20, 46], mr)
    yield "ct_single_vertebra", lambda: (*pair(*vertebra), [22], default)
    yield "axial_muscles", lambda: (*pair(*muscles), [1, 2, 3, 4], mr)
    brain = data / "pyradiomics"
    yield (
        "brain1",
        lambda: (read_image(brain / "brain1_image.nrrd"), read_mask(brain / "brain1_label.nrrd"), [1], default),
    )
    yield "MR phantom 220x220x77", lambda: (*sagittal_phantom(), [1, 2, 3, 4, 5], mr)
    yield "MR phantom, default set", lambda: (*sagittal_phantom(), [1, 2, 3, 4, 5], default)
    yield "ROI of 500,000 voxels", large

    def distributed(name: str) -> Case:
        folder = source_distribution() / "data"
        return (
            read_image(folder / f"{name}_image.nrrd"),
            read_mask(folder / f"{name}_label.nrrd"),
            [1],
            default,
        )

    for name in ("lung1", "lung2", "brain2", "breast1"):
        yield f"{name} (source distribution)", partial(distributed, name)


@cache
def source_distribution() -> Path:
    """Folder of pyradiomics 3.0.1's source distribution, downloaded by pip the first time. Raises LookupError."""
    given = os.environ.get("PYRADIOMICS_SDIST")
    if given:
        return Path(given)
    kept = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "asdeg"
    unpacked = kept / "pyradiomics-3.0.1"
    if not (unpacked / "data").is_dir():
        kept.mkdir(parents=True, exist_ok=True)
        options = ["--no-binary", ":all:", "--no-deps", "--no-build-isolation", "--quiet", "--dest", str(kept)]
        command = [sys.executable, "-m", "pip", "download", "pyradiomics==3.0.1", *options]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            with tarfile.open(kept / "pyradiomics-3.0.1.tar.gz") as archive:
                archive.extractall(kept, filter="data")
        except (subprocess.SubprocessError, OSError, tarfile.TarError) as error:
            raise LookupError("pip could not download the source distribution of pyradiomics 3.0.1") from error
    return unpacked


def sagittal_phantom() -> tuple[sitk.Image, sitk.Image]:
    """Isotropic sagittal MR of five vertebrae: smooth anatomy, a bias field, correlated texture, noise."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(7)
    shape = (77, 220, 220)
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    labels = np.zeros(shape, np.uint8)
    for k in range(5):
        centre = 24 + 43 * k
        half = 13.0 + k
        body = ((x - 105 - 4 * k) / 21.0) ** 4 + ((z - 38) / 20.0) ** 4 + ((y - centre) / half) ** 4 < 1
        labels[body] = k + 1
    texture = gaussian_filter(random.normal(size=shape), 1.2)
    texture /= texture.std()
    signal = 260 + 160 * (labels > 0) + 60 * texture + 50 * np.sin(x / 60.0) * np.cos(y / 80.0)
    image = sitk.GetImageFromArray(np.rint(signal + random.normal(0, 12, shape)).astype(np.int16))
    mask = sitk.GetImageFromArray(labels)
    for grid in (image, mask):
        grid.SetSpacing((0.9, 0.9, 0.9))
    return image, mask


def _dilated(mask: sitk.Image, labels: list[int], voxels: int) -> sitk.Image:
    """The labels as one, grown until it holds that many voxels; of the last layer only as many as are missing."""
    from scipy.ndimage import binary_dilation

    roi = np.isin(sitk.GetArrayFromImage(mask), labels)
    while (missing := voxels - int(roi.sum())) > 0:
        layer = np.flatnonzero(binary_dilation(roi) & ~roi)
        roi.reshape(-1)[layer[:missing]] = True
    grown = sitk.GetImageFromArray(roi.astype(np.uint8))
    grown.CopyInformation(mask)
    return grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--labels", help="numbers with commas; every label of the mask without it")
    parser.add_argument("--feature-set", default="pyradiomics-default", help="a name, or a YAML or JSON file")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--cases", action="append", help="only the named cases that contain this text")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--details", action="store_true", help="JSON with all that was measured")
    args = parser.parse_args()
    as_json = args.json or args.details

    def said(result: dict[str, Any]) -> dict[str, Any]:
        return result if args.details else {name: result[name] for name in FIGURES}

    warnings.simplefilter("ignore")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if args.image or args.mask:
        if not (args.image and args.mask):
            parser.error("--image and --mask go together")
        image = read_image(args.image)
        mask = align_mask(read_mask(args.mask), image)
        present = [int(label) for label in np.unique(sitk.GetArrayViewFromImage(mask)) if label]
        labels = [int(part) for part in args.labels.split(",")] if args.labels else present
        _warm_up()
        result = measure(image, mask, labels, feature_set(args.feature_set))
        print(json.dumps(said(result)) if as_json else _line("", result))
        return
    _warm_up()
    results = {}
    for name, load in named_cases(args.data):
        if args.cases and not any(text in name for text in args.cases):
            continue
        try:
            image, mask, labels, settings = load()
        except (LookupError, AsdegError, OSError) as error:
            print(f"{name:32} left out: {error}", file=sys.stderr)
            continue
        results[name] = measure(image, mask, labels, settings)
        if not as_json:
            print(_line(name, results[name]), flush=True)
    if as_json:
        print(json.dumps({name: said(result) for name, result in results.items()}))


def _warm_up() -> None:
    random = np.random.default_rng(0)
    image = sitk.GetImageFromArray(random.normal(0, 300, (12, 12, 12)).astype(np.int16))
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[3:9, 3:9, 3:9] = 1
    measure(image, sitk.GetImageFromArray(mask), [1], REGISTRY["study-ct-log"], repeat=1)


def _line(name: str, r: dict[str, Any]) -> str:
    voxels = "-".join(str(f([roi["voxels"] for roi in r["rois"]])) for f in (min, max))
    parts = [
        f"{name:32} {len(r['rois'])} ROIs of {voxels:>15} voxels",
        f"stock {r['stock_cpu_s']:7.2f} s  ours {r['cpu_s']:7.3f} s",
        f"cpu {r['cpu_ratio']:6.1f}x  wall {r['wall_ratio']:6.1f}x",
        f"{r['values']} values, {r['within_1e9']} within 1e-9, {r['bit_identical']} to the last bit",
    ]
    return "  ".join(parts) + (f"  outside: {r['outside']}" if r["outside"] else "")


if __name__ == "__main__":
    main()
