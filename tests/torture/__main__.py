"""``python -m tests.torture``: kill the processes of one store at random instants and count what was lost."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.object_storage import empty_place, object_storage
from tests.torture.run import MUST_BE_NONE, torture


def main() -> int:
    """Exit code 1 where anything was lost, doubled, torn or broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument(
        "--store", default="folder", help="folder, s3 (a server of its own), or an empty address  [default: folder]"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asdeg-torture-") as folder, ExitStack() as stack:
        (Path(folder) / "notes").mkdir()
        uri = args.store
        if uri == "folder":
            uri = str(Path(folder) / "store")
        elif uri == "s3":
            uri = empty_place(stack.enter_context(object_storage()))
        found = torture(
            uri,
            Path(folder) / "notes",
            kills=args.kills,
            writers=args.writers,
            seed=args.seed,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print(json.dumps(found, indent=2))
    return int(any(found[name] for name in MUST_BE_NONE))


if __name__ == "__main__":
    sys.exit(main())
