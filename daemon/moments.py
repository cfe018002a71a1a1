"""What a person writes for a moment → Unix time. Pure."""

import re
from datetime import date, datetime, time

from daemon.errors import ConfigError
from engine.grid import US_PER_S

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def parse_moment(text: str, option: str, now: datetime) -> int:
    """A moment in Unix microseconds.

    Args:
        text: A date and time of day in ISO 8601, local if it names no zone; a time of day, which
            is the latest such; or a time ago: ``90s``, ``15m``, ``2h``, ``3d``.
        option: Where it stands, for errors.
        now: The local time now, with its zone.

    Raises:
        ConfigError: It is none of these.
    """
    if match := _DURATION.fullmatch(text.strip()):
        ago_s = float(match[1]) * _UNITS_S[match[2]]
        return round((now.timestamp() - ago_s) * US_PER_S)
    try:
        return round(_moment(text.strip(), now).timestamp() * US_PER_S)
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(
            f"{option} is {text!r}, wanted a moment such as 2026-03-05T14:00 or 14:00, or a time "
            "ago such as 90s, 15m, 2h or 3d"
        ) from error


def _moment(text: str, now: datetime) -> datetime:
    if "-" in text:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.astimezone()
    of_day = time.fromisoformat(text)
    today = _at(now.date(), of_day)
    return today if today <= now else _at(date.fromordinal(now.date().toordinal() - 1), of_day)


def _at(day: date, of_day: time) -> datetime:
    moment = datetime.combine(day, of_day)
    return moment if moment.tzinfo else moment.astimezone()
