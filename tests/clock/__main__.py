"""``make clock``: a month of trouble with clocks → reports/clock.md and clock.png."""

import argparse
from pathlib import Path

from tests.clock.play import dated
from tests.clock.report import Played, write
from tests.clock.trouble import World


def main() -> None:
    """Play the month once for a camera that sends its wall clock's time, and once without."""
    parser = argparse.ArgumentParser(prog="python -m tests.clock", description=__doc__)
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--report", type=Path, default=Path("reports/clock.md"))
    asked = parser.parse_args()
    played = []
    for says_when in (False, True):
        world = World(asked.seed, asked.days, says_when=says_when)
        played.append(Played(world, tuple(dated(world))))
    write(asked.report, played)


if __name__ == "__main__":
    main()
