"""A sink without I/O: it keeps revisions of events in a list."""

from collections.abc import Sequence

from engine.types import ActionEvent


class MemoryEventSink:
    """Keeps what was published, oldest first.

    Args:
        events: The list to append to; a new one by default.
    """

    def __init__(self, events: list[ActionEvent] | None = None) -> None:
        self.events = [] if events is None else events

    async def start(self) -> None:
        """See ``EventSink``; there is nothing to open."""

    async def publish(self, events: Sequence[ActionEvent]) -> None:
        """See ``EventSink``."""
        self.events.extend(events)

    async def close(self) -> None:
        """See ``EventSink``; there is nothing to close."""
