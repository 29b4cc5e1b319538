"""The report's page as a PDF, for those who print or file it."""

from __future__ import annotations

from pathlib import Path

from feature_store.errors import NotReady


def write_pdf(page: Path) -> Path:
    """Prints ``report.html`` beside itself as ``report.pdf`` (replaced where it exists), and returns that.

    Raises NotReady where the system lacks Pango, which lays the text out.
    """
    try:
        from weasyprint import HTML
    except OSError as error:  # the library is there; what it loads from the system is not
        raise NotReady(
            "A PDF needs the library Pango, which this machine lacks.",
            action="Install it (Debian: apt-get install libpangoft2-1.0-0), or print report.html from a browser.",
        ) from error
    target = page.with_suffix(".pdf")
    HTML(filename=str(page)).write_pdf(str(target))
    return target
