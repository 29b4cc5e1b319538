"""Structured logs on stderr, for people or as JSON lines. Logs name codes, counts and runs, never patients."""

from __future__ import annotations

import logging
import sys

import structlog


def start(log_format: str = "console", level: str = "warning") -> None:
    """Configure structlog for this process; safe to call again."""
    renderer = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # the stderr of the moment a line is written: a caller may have replaced the one of this moment
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
