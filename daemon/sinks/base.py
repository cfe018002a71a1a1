"""Where action events go, and the promises every sink keeps."""

from collections.abc import Sequence
from typing import Protocol

from engine.types import ActionEvent


class EventSink(Protocol):
    """Takes revisions of events; readers keep the highest revision per event id."""

    async def start(self) -> None:
        """Connect or open.

        Raises:
            TransportError: Not reachable before the deadline; names the address and the fix.
            ConfigError: What was configured cannot work.
        """

    async def publish(self, events: Sequence[ActionEvent]) -> None:
        """Return once all ``events`` are durable, in this order. Safe to repeat.

        Raises:
            TransportError: Not all could be made durable before the deadline; some may have been.
        """

    async def close(self) -> None:
        """Flush and let go. Safe to repeat."""
