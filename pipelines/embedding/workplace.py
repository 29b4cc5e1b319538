"""The folder of a training: the state it goes on from, its curve, how far it is."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from feature_store.errors import BlobCorrupt
from models.learning.curve import curve_lines


@dataclass(frozen=True)
class Workplace:
    """The folder of a run: state, curve, best weights. Workers on several machines have to share it."""

    folder: Path

    def read(self, key: str) -> dict[str, Any] | None:
        """The state to go on from, where there is one of this key. Raises BlobCorrupt."""
        path = self.folder / "state.pt"
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise BlobCorrupt(
                f"the training's state cannot be read ({type(error).__name__}).", action="Remove it and start again."
            ) from error
        return state if state.get("key") == key else None

    def has_state(self) -> bool:
        """Whether there is a state, of whatever run."""
        return (self.folder / "state.pt").exists()

    def write(self, state: dict[str, Any]) -> None:
        """Keep the state, whole or not at all, and its curve beside it for people to look at."""
        self._replace("state.pt", lambda path: torch.save(state, path))
        self._replace("curve.jsonl", lambda path: path.write_bytes(curve_lines(state["curve"])))

    def tell(self, step: int, steps: int) -> None:
        """How far the run is, for who waits for it in another process."""
        self._replace("progress.json", lambda path: path.write_text(json.dumps([step, steps])), sync=False)

    def told(self) -> tuple[int, int] | None:
        """What :meth:`tell` said last."""
        try:
            step, steps = json.loads((self.folder / "progress.json").read_text())
        except (OSError, ValueError):
            return None
        return step, steps

    def _replace(self, name: str, write: Callable[[Path], Any], sync: bool = True) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{uuid.uuid4().hex}.part"
        write(part)
        if sync:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(self.folder / name)
