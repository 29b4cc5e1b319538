# ruff: noqa: E402 (threads are limited before NumPy is imported)
"""Peak memory of the worker processes for a very large ROI: two million voxels of a 512 x 512 x 600 CT.

    python tests/benchmarks/memory.py --feature-set study-ct --json

The image and mask (a phantom: smooth texture, noise, one ellipsoid) are written as the store keeps them. Then, as
the extraction does it, one fresh process reads both, prepares the series and cuts the ROI out, and another computes
the features of what was cut out. Printed is each one's highest resident size (Linux' ``VmHWM``; ``ru_maxrss`` would
hold the parent's), with Python and all libraries in it, and the CPU seconds each took.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# a file of this folder has the name of a library: the folder must not be looked in first
sys.path[:] = [str(REPOSITORY), *(p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent)]

LIMIT_GIB = 3.0


def make(folder: Path, size: tuple[int, int, int], roi_voxels: int) -> None:
    """Write ``image`` and ``mask`` (size x, y, z) in the store's form."""
    import numpy as np
    import SimpleITK as sitk
    from scipy.ndimage import gaussian_filter

    from pipelines.imaging.images import write_canonical

    random = np.random.default_rng(0)
    width, height, depth = size
    tile = gaussian_filter(random.normal(size=(40, height, width)).astype(np.float32), 1.5)
    tile *= 150 / tile.std()
    voxels = np.empty((depth, height, width), np.int16)
    for z in range(depth):
        noise = random.standard_normal((height, width), dtype=np.float32)
        voxels[z] = tile[z % len(tile)] + 25 * noise + (z % 7)
    centre = [n / 2 for n in voxels.shape]
    # an ellipsoid half again as long as wide
    radius = (roi_voxels / (4 / 3 * np.pi * 1.5)) ** (1 / 3)
    grid = np.ogrid[: voxels.shape[0], : voxels.shape[1], : voxels.shape[2]]
    far = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, (1.5 * radius, radius, radius), strict=True))
    mask = (far <= 1).astype(np.uint8)
    for name, array in (("image", voxels), ("mask", mask)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.8, 0.8, 1.0))
        write_canonical(image, folder / f"{name}.nrrd")


def read(folder: Path, name: str) -> dict[str, float]:
    """What the reading task does: image and mask in, the pickled crop out."""
    import SimpleITK as sitk

    from pipelines.cases.rois import roi_mask
    from pipelines.imaging.images import content_hash, read_canonical
    from pipelines.radiomics.feature_set_choice import feature_set
    from pipelines.radiomics.preprocessing import preprocess_mask
    from pipelines.radiomics.series import RadiomicsSeries

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    settings = feature_set(name)
    image, mask = (read_canonical(folder / f"{kind}.nrrd") for kind in ("image", "mask"))
    for one in (image, mask):
        content_hash(one)  # the task looks whether the blob still has its hash
    series = RadiomicsSeries.of(image, settings)
    crop = series.crop(roi_mask(preprocess_mask(mask, settings), [1]))
    (folder / "crop").write_bytes(pickle.dumps(crop))
    return {"roi_voxels": crop.voxel_count}


def extract(folder: Path, name: str) -> dict[str, float]:
    """What a radiomics actor does: the crop in, values out."""
    import numpy as np

    from pipelines.radiomics.extractor import RadiomicsExtractor
    from pipelines.radiomics.feature_set_choice import feature_set

    extractor = RadiomicsExtractor(feature_set(name))
    values = extractor.extract_from_crop(pickle.loads((folder / "crop").read_bytes()))
    return {"values": len(values), "finite": int(np.isfinite(values).sum())}


def highest_kib() -> int:
    """Highest resident size of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(folder: Path, name: str) -> dict[str, object]:
    """Both stages, each in a process of its own."""
    result: dict[str, object] = {"feature_set": name}
    for stage in ("read", "extract"):
        command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--feature-set", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result |= json.loads(done.stdout)
    result["crop_mib"] = round((folder / "crop").stat().st_size / 1024**2)
    result["within_limit"] = all(float(str(result[f"{stage}_gib"])) < LIMIT_GIB for stage in ("read", "extract"))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feature-set", action="append", help="a name or file; may be repeated  [study-ct]")
    parser.add_argument("--size", default="512,512,600", help="voxels along x, y, z")
    parser.add_argument("--roi", type=int, default=2_000_000, help="voxels of the ROI")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stage", choices=["read", "extract"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.feature_set or ["study-ct"]
    if args.stage:
        start = time.process_time()
        found = {"read": read, "extract": extract}[args.stage](args.folder, names[0])
        peak = highest_kib() / 1024**2
        cpu = time.process_time() - start
        print(json.dumps({**found, f"{args.stage}_gib": round(peak, 3), f"{args.stage}_cpu_s": round(cpu, 1)}))
        return
    width, height, depth = (int(part) for part in args.size.split(","))
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), (width, height, depth), args.roi)
        results = [measure(Path(folder), name) for name in names]
    for result in results:
        result["size"] = args.size
        if not args.json:
            print("  ".join(f"{key} {value}" for key, value in result.items()))
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
