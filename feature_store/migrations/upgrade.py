"""Bring a control database to the tables of this version: once, whoever and however many open it.

A step is a file ``versions/vNNNN_what.py`` with the next number; a table changed in ``control_tables`` without
a step fails a test. A database of the time before there were steps is taken as it stands: the first one makes
only what is missing.
"""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.engine import Connection

from feature_store.errors import StoreError

HERE = Path(__file__).parent
_one_at_a_time = threading.Lock()  # Alembic's context is the whole process's


def upgrade(connection: Connection) -> None:
    """Run the steps that ``connection`` has not seen, inside the transaction it is in.

    Raises StoreError where the database was made by a newer asdeg.
    """
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        with _one_at_a_time:
            command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            "The control database is of a newer asdeg.", action="Install that version here, too."
        ) from error
