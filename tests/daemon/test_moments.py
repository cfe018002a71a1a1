"""What a person writes for a moment."""

from datetime import UTC, datetime

import pytest

from daemon.errors import ConfigError
from daemon.moments import parse_moment

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hours_ago"),
    [("3600s", 1), ("90m", 1.5), ("6h", 6), ("2d", 48), ("2026-01-31T11:00:00Z", 1)],
)
def test_a_time_is_told_as_so_long_ago_or_as_a_moment(text: str, hours_ago: float) -> None:
    assert int((NOW.timestamp() - hours_ago * 3600) * 1e6) == parse_moment(text, "--since", NOW)


@pytest.mark.parametrize("text", ["", "yesterday", "6", "6w", "-6h"])
def test_any_other_time_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--since is .*, or a time ago such as 90s, 15m, 2h or 3d"
    ):
        parse_moment(text, "--since", NOW)
