"""How fast embeddings are computed, against a matrix product and against MONAI's own forward.

    python tests/benchmarks/embedding.py [--encoder vit_base] [--rounds 8] [--threads N] [--json]

``fraction_of_matmul`` is the encoder's arithmetic (multiply-adds of its products, counted on MONAI's net)
per second, as a share of what a 2048×2048×2048 product reaches in the same run. The rounds of all
candidates alternate and the best of each counts, so that a busy machine disturbs all alike. On a very busy one
``fraction_of_matmul_by_cpu`` with ``--threads 1`` is the figure to read: the same share of CPU seconds, which other
programs hardly change.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.checkpoints import random_weights
from models.encoders import named_encoder
from models.vit import load_net
from pipelines.embedding.embedder import Embedder, roi_cube

MATMUL_EDGE = 2048
ROI_SHAPE = (60, 90, 80)
"""Of the box a cube is resized from: about a vertebral column at 1.5 mm."""


def measure(encoder: str, rounds: int, batch: int) -> dict[str, Any]:
    settings = named_encoder(encoder)
    weights = random_weights(settings.architecture, 0)
    embedder, net = Embedder(settings, weights), load_net(settings.architecture, weights)
    draw = np.random.default_rng(0)
    image = sitk.GetImageFromArray(draw.normal(size=ROI_SHAPE).astype(np.float32))
    mask = np.ones(ROI_SHAPE, dtype=bool)
    cubes = draw.standard_normal((batch, 128, 128, 128), dtype=np.float32)
    batch_tensor = torch.from_numpy(cubes)[:, None]
    left, right = torch.randn(2, MATMUL_EDGE, MATMUL_EDGE).unbind()
    product = torch.empty(MATMUL_EDGE, MATMUL_EDGE)

    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            expected = net(batch_tensor)[0].mean(dim=1).numpy()
        flop = counter.get_total_flops() / batch
        candidates: dict[str, Callable[[], Any]] = {
            "matmul": lambda: torch.mm(left, right, out=product),
            "embedder": lambda: embedder.embed(cubes),
            "monai": lambda: net(batch_tensor),
            "monai_one": lambda: net(batch_tensor[:1]),
            "cube": lambda: roi_cube(image, mask, settings),
        }
        best, best_cpu = (dict.fromkeys(candidates, float("inf")) for _ in range(2))
        for _ in range(rounds):
            for name, run in candidates.items():
                for _ in range(4 if name == "matmul" else 1):
                    start, start_cpu = time.perf_counter(), time.process_time()
                    run()
                    best_cpu[name] = min(best_cpu[name], time.process_time() - start_cpu)
                    best[name] = min(best[name], time.perf_counter() - start)
    product_flop = 2 * MATMUL_EDGE**3
    rate = product_flop / best["matmul"]
    return {
        "encoder": encoder,
        "threads": torch.get_num_threads(),
        "batch": batch,
        "gflop_per_roi": flop / 1e9,
        "matmul_gflops": rate / 1e9,
        "fraction_of_matmul": batch * flop / best["embedder"] / rate,
        "fraction_of_matmul_by_cpu": batch * flop / best_cpu["embedder"] / (product_flop / best_cpu["matmul"]),
        "monai_fraction_of_matmul": batch * flop / best["monai"] / rate,
        "monai_fraction_of_matmul_one_at_a_time": flop / best["monai_one"] / rate,
        "seconds_per_roi": best["embedder"] / batch,
        "cpu_seconds_per_roi": best_cpu["embedder"] / batch,
        "seconds_per_cube": best["cube"],
        "largest_difference_to_monai": float(np.abs(embedder.embed(cubes) - expected).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vit_base", choices=["vit_small", "vit_base"])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    found = measure(arguments.encoder, arguments.rounds, arguments.batch)
    if arguments.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:40s} {value:.4g}" if isinstance(value, float) else f"{name:40s} {value}")


if __name__ == "__main__":
    main()
