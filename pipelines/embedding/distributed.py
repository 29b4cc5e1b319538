"""A training over several workers by Ray Train: the same loop, gradients averaged by torch's DDP.

Workers take turns in every batch (worker r of W learns from positions r, r + W, …), so that a step's gradient
is that of one worker with the whole batch, up to the order of sums. Gloo on CPUs, NCCL on GPUs. The state is
the loop's own file, in a folder that all workers share; a worker that dies brings the group down, and Ray Train
starts it again from there.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_store.errors import AsdegError, ExtractionError, UsageError
from pipelines.embedding.training import Group, Progress, Task, train
from pipelines.embedding.workplace import Workplace
from pipelines.ray_session import ray_session

if TYPE_CHECKING:
    from torch import nn

RESTARTS = 2
"""Of the group, after a worker died."""
ERROR = "error.json"


@dataclass(frozen=True)
class Compute:
    """With how much of which machines; none of it decides what is learned (beyond the order of sums)."""

    workers: int = 1
    threads: int | None = None
    """Of torch in a worker; None: torch's own choice for one worker, 1 for several."""
    readers: int = 2
    """Threads that cut and augment cubes in a worker."""
    ray_address: str | None = None
    cpus: int | None = None


def train_with(task: Task, folder: Path, compute: Compute, progress: Progress | None = None) -> dict[str, Any]:
    """:func:`pipelines.embedding.training.train`, here or on Ray's workers; the final state."""
    import torch

    if task.settings.batch % compute.workers:
        raise UsageError(
            f"A batch of {task.settings.batch} cannot be shared by {compute.workers} workers.",
            action="Choose a batch that is a multiple of the workers.",
        )
    if compute.workers == 1 and compute.ray_address is None:
        if compute.threads is not None:
            torch.set_num_threads(compute.threads)
        return train(task, folder, readers=compute.readers, progress=progress)
    with ray_session(compute.ray_address, compute.cpus) as resources, _followed(folder, task, progress):
        if compute.workers > (resources.gpus or resources.cpus):
            raise UsageError(
                f"There are {resources.gpus or resources.cpus} GPUs or CPUs for {compute.workers} workers.",
                action="Ask for fewer workers, or for a larger cluster.",
            )
        _fit(task, folder, compute, use_gpu=resources.gpus > 0)
    state = Workplace(folder).read(task.key)
    if state is None or not state["over"]:
        raise ExtractionError("the training ended without its state.", action="Run it again; it goes on.")
    return state


def _fit(task: Task, folder: Path, compute: Compute, *, use_gpu: bool) -> None:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    (folder / ERROR).unlink(missing_ok=True)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "task": task,
            "folder": str(folder.resolve()),
            "readers": compute.readers,
            "threads": compute.threads or 1,
        },
        scaling_config=ScalingConfig(num_workers=compute.workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name="ray",
            storage_path=str(folder.resolve()),
            failure_config=FailureConfig(max_failures=RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    try:
        trainer.fit()
    except Exception as error:
        named = _named(folder)
        if named is not None:
            raise named from error
        raise ExtractionError(
            f"the training was stopped by {type(error).__name__}; what was learned stays.",
            action="Run it again: it goes on where it stopped. Ray's log says more.",
        ) from error


def _worker(config: dict[str, Any]) -> None:
    """Runs in each of Ray's workers."""
    import torch

    torch.set_num_threads(config["threads"])
    folder = Path(config["folder"])
    try:
        train(config["task"], folder, readers=config["readers"], group=RayGroup())
    except AsdegError as error:
        # Ray would hand over its own exception; what we raised on purpose is told by file.
        (folder / ERROR).write_text(json.dumps([type(error).__name__, error.message, error.action]))
        raise


class RayGroup(Group):
    """The workers that Ray Train started, as one of them sees them."""

    def __init__(self) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        self.rank, self.size = context.get_world_rank(), context.get_world_size()
        self.device = str(ray.train.torch.get_device())

    def wrap(self, net: nn.Module) -> nn.Module:
        import ray.train.torch

        wrapped: nn.Module = ray.train.torch.prepare_model(net)
        return wrapped

    def gather(self, value: Any) -> list[Any]:
        import torch.distributed

        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found


def _named(folder: Path) -> AsdegError | None:
    import feature_store.errors as errors

    try:
        name, message, action = json.loads((folder / ERROR).read_text())
    except (OSError, ValueError):
        return None
    kind = getattr(errors, name, AsdegError)
    found: AsdegError = kind(message, action=action)
    return found


@contextmanager
def _followed(folder: Path, task: Task, progress: Progress | None) -> Iterator[None]:
    """While the workers train, say how far rank 0 says it is."""
    done = threading.Event()

    def follow() -> None:
        place, last = Workplace(folder), None
        while not done.wait(0.5):
            told = place.told()
            if progress is not None and told is not None and told != last:
                last = told
                progress(f"step {told[0]} of {told[1]}", told[0] / told[1])

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
