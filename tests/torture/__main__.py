"""``python -m tests.torture``: kill the processes of one store at random instants and count what was lost."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.torture.run import torture


def main() -> int:
    """Exit code 1 where anything was lost, torn or broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--store", help="an empty address, folder or s3://  [default: a temporary folder]")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asdeg-torture-") as folder:
        (Path(folder) / "acknowledged").mkdir()
        uri = args.store or str(Path(folder) / "store")
        found = torture(uri, Path(folder) / "acknowledged", kills=args.kills, writers=args.writers, seed=args.seed)
    print(json.dumps(found, indent=2))
    return int(bool(found["lost"] or found["torn_reads"] or found["broken_promises"] or found["readers_died"]))


if __name__ == "__main__":
    sys.exit(main())
