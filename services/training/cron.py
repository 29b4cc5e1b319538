"""When a schedule is due: five cron fields, in UTC, as cron itself reads them."""

from __future__ import annotations

import re

from apscheduler.triggers.cron import CronTrigger

from feature_store.errors import UsageError

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


def trigger(cron: str) -> CronTrigger:
    """Of ``minute hour day month weekday``, for example ``0 3 * * 0`` (Sundays at three).

    Raises UsageError. In the weekday 0 and 7 are Sunday, as everywhere but in APScheduler, where 0 is Monday.
    """
    fields = cron.split()
    try:
        if len(fields) != 5:
            raise ValueError
        fields[4] = _named(fields[4])
        return CronTrigger.from_crontab(" ".join(fields), timezone="UTC")
    except (ValueError, IndexError) as error:
        raise UsageError(
            "That is no cron line.", action='Write five fields, for example "0 3 * * 0": Sundays at 03:00 UTC.'
        ) from error


def _named(weekday: str) -> str:
    """Numbers of days as names; the step behind a slash stays a number."""
    parts = []
    for part in weekday.lower().split(","):
        days, slash, step = part.partition("/")
        parts.append(re.sub(r"\d+", lambda found: DAYS[int(found.group())], days) + slash + step)
    return ",".join(parts)
