"""How a command is declared: its function gets a Session first, and ``--store`` and ``--json`` come by themselves."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from infra.cli.session import Session
from infra.settings import load_settings

Function = TypeVar("Function", bound=Callable[..., None])

_STORE = inspect.Parameter(
    "store",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option("--store", metavar="URI", help="The feature store.  [env: ASDEG_STORE; default: ./asdeg-store]"),
    ],
)
_JSON = inspect.Parameter(
    "as_json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--json", help="Print the result as JSON.")],
)
_KEY_FILE = inspect.Parameter(
    "pseudonym_key_file",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            "--pseudonym-key-file",
            metavar="FILE",
            help="The site's key: patient ids become its pseudonyms.  [env: ASDEG_PSEUDONYM_KEY_FILE]",
        ),
    ],
)


def command(app: typer.Typer, name: str, *, example: str, patients: bool = False) -> Callable[[Function], Function]:
    """Add ``function(session, …)`` to the application as the command ``name``.

    ``patients``: it takes ids of patients, which :meth:`House.pseudonym` turns into pseudonyms by the site's key.

    Parameters of the function that are settings (``port``, ``grid``, …) are not special: the function
    passes them on by ``dataclasses.replace``-like copies of ``session.settings``.
    """

    def add(function: Function) -> Function:
        hints = typing.get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]

        @functools.wraps(function)
        def run(context: typer.Context, *args: Any, store: str | None, as_json: bool, **kwargs: Any) -> None:
            before: dict[str, Any] = context.obj or {}
            key_file = kwargs.pop(_KEY_FILE.name) if patients else None
            settings = load_settings(store=store or before.get("store"), pseudonym_key_file=key_file)
            start_logging(settings.log_format, settings.log_level)
            function(Session(settings, as_json or bool(before.get("as_json"))), *args, **kwargs)

        parameters = [
            inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in own),
            *([_KEY_FILE] if patients else []),
            _STORE,
            _JSON,
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__  # typer would look at the function below instead
        doc = inspect.getdoc(function) or ""
        app.command(name, help=f"{doc}\n\nExample: {example}")(run)
        return function

    return add


def start_logging(log_format: str, level: str) -> None:
    """Structured logs on stderr; imported late, because most commands end before they log anything."""
    from infra.logging import start

    start(log_format, level)
