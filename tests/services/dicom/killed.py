"""Takes instances in, or assembles them, in children that are killed at random instants; prints what was acknowledged.

``python -m tests.services.dicom.killed FOLDER take|assemble KILLS LONGEST_S``: the instances lie pickled in
FOLDER/study, the house in FOLDER/killed. A child lives until it has acknowledged some number of instances, and up
to LONGEST_S more.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import sys
import time
from pathlib import Path

from tests.services.dicom.doors import Doors

MOST = 12
"""Instances that a child acknowledges before it is killed, at most."""


def main() -> None:
    """One child after the other, each from the beginning, in an order of its own."""
    folder, job, kills, longest = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    study = pickle.loads((folder / "study").read_bytes())
    draw, acknowledged, finished = random.Random(job), set[int](), 0
    for _ in range(kills):
        order = draw.sample(range(len(study)), len(study))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _work(folder, job, study, order, writer)
        os.close(writer)
        last = draw.randrange(MOST) if job == "take" else 0
        said = os.read(reader, 1)
        while said.count(b"\n") < 2 * last:
            said += os.read(reader, 4096)
        time.sleep(draw.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        while part := os.read(reader, 4096):
            said += part
        os.close(reader)
        os.waitpid(child, 0)
        finished += said.endswith(b"end\n")
        acknowledged |= {int(line) for line in said.split(b"\n")[:-1] if line.isdigit()}
    print(json.dumps({"acknowledged": sorted(acknowledged), "finished": finished}))


def _work(folder: Path, job: str, study: list, order: list[int], writer: int) -> None:  # type: ignore[type-arg]
    doors = Doors(folder / "killed")
    os.write(writer, b".")
    for i in order if job == "take" else ():
        assert doors.take(study[i]) == [0]
        os.write(writer, b"\n%d\n" % i)
    if job == "assemble":
        doors.assembled()
    os.write(writer, b"\nend\n")
    time.sleep(60)


if __name__ == "__main__":
    main()
