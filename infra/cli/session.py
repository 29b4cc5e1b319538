"""What every command has: settings, and one way to say things, for people or for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.settings import Settings

if TYPE_CHECKING:
    from infra.bootstrap import House

WIDTH = 140
"""Columns of a table that goes into a file or a pipe."""

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction done, 0 to 1."""


@dataclass(frozen=True)
class Session:
    """One run of one command. Results go to stdout, everything else to stderr."""

    settings: Settings
    as_json: bool

    def house(self, *, create: bool = False) -> House:
        """The store, the control database and the handlers, opened on first use."""
        from infra.bootstrap import House

        return House.open(self.settings, create=create)

    def but(self, **settings: Any) -> Session:
        """With other settings in some places (None means: not given). Raises SettingsError."""
        return Session(self.settings.but(**settings), self.as_json)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """A table for people, a list of objects for programs (with every key, shown or not)."""
        if self.as_json:
            self.json([dict(row) for row in rows])
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(column)) for column in columns))
        width = None if sys.stdout.isatty() else WIDTH
        Console(width=width).print(table if rows else f"{title}: none yet.")

    def result(self, fields: Mapping[str, Any], *lines: str) -> None:
        """One result: the lines for people, the fields for programs."""
        if self.as_json:
            self.json(dict(fields))
            return
        for line in lines or tuple(f"{name.replace('_', ' ')}: {_cell(value)}" for name, value in fields.items()):
            print(line)

    def json(self, value: Any) -> None:
        """JSON on stdout; a time as ISO 8601, a number that is none as null."""
        print(json.dumps(_plain(value), ensure_ascii=False, indent=2))

    def note(self, line: str) -> None:
        """Something worth knowing that is no result."""
        print(line, file=sys.stderr)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """A progress bar on stderr; on something that is no terminal, a line at each tenth of the way."""
        if self.as_json or not sys.stderr.isatty():
            yield self._lines(title)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=1.0)
            yield lambda step, done: bar.update(task, description=f"{title}: {step}", completed=done)

    def _lines(self, title: str) -> Progress:
        last = -1

        def say(step: str, done: float) -> None:
            nonlocal last
            if int(done * 10) != last and not self.as_json:
                last = int(done * 10)
                self.note(f"{title}: {step} ({done:.0%})")

        return say


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(item) for item in value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ", timespec="seconds"))
    return str(value)


def _plain(value: Any) -> Any:
    """Numpy, pandas and pydantic values as JSON has them."""
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
