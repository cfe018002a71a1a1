"""Where a local journal shows its events to other programs, and what every such place promises.

The journal's database is the truth, and holds every revision until its projection has it for
good. How far the projection is, its *mark*, is kept in the same database.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from engine.types import ActionEvent


class Projection(Protocol):
    """Shows revisions in the order in which they were kept.

    Attributes:
        mark: How far it is for good; it rises by ``size_of`` an event.
        file: The file that it writes; None: it waits for no disk.
    """

    mark: int
    file: Path | None

    async def start(self, mark: int | None, waiting: Sequence[ActionEvent]) -> None:
        """Open, and show those of ``waiting`` that a crash has left out.

        Args:
            mark: How far it was when the first of ``waiting`` was kept; None: not known.
            waiting: Revisions that it may or may not have, oldest first.

        Raises:
            TransportError: Not reachable before the deadline; names the address and the fix.
            ConfigError: What was configured cannot work.
        """

    def size_of(self, event: ActionEvent) -> int:
        """By how much ``mark`` rises with an event."""

    async def let_go_if_moved(self) -> bool:
        """Let go of a place that was moved away, such as a file by a rotation of logs.

        Returns:
            True if it was. All that was shown is there for good then, ``mark`` is 0, and ``start``
            opens the new place.

        Raises:
            TransportError: What was shown could not be made to last.
        """

    async def show(self, events: Sequence[ActionEvent]) -> None:
        """Return once other programs can see all ``events``, in this order.

        Raises:
            TransportError: Not all could be shown before the deadline; some may have been.
        """

    async def close(self) -> None:
        """Let everything that was shown be there for good, and let go. Safe to repeat."""
