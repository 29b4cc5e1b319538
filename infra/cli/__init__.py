"""The ``asdeg`` command line. Each file here is a group of commands; nothing heavy is imported before it is used."""

from __future__ import annotations

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Run a command: 0 done, 2 bad usage, 1 a named failure, told in one line on stderr without a traceback."""
    from feature_store.errors import AsdegError, told_of
    from infra.cli.app import build

    debug = os.environ.get("ASDEG_DEBUG", "") not in ("", "0", "false")
    try:
        result = build()(args=argv, prog_name="asdeg", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except AsdegError as error:
        if debug:
            raise
        print(error.line(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if debug:
            raise
        usage = _usage_line(error)
        if usage is not None:
            print(usage, file=sys.stderr)
            return 2
        shown = "ASDEG_DEBUG=1 shows its text, which may quote a patient's data, and the traceback."
        print(f"Unexpected: {told_of(error)}. {shown}", file=sys.stderr)
        return 1


def _usage_line(error: Exception) -> str | None:
    """One line for a call that the parser refused; None for any other exception."""
    message = getattr(error, "format_message", None)
    if message is None or not hasattr(error, "exit_code"):
        return None
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "asdeg"
    return f"Usage: {message()} Try '{path} --help'."
