"""A partition's offsets in flight → the next offset that a restart may begin at. Pure.

Deliveries of one partition go to several cameras, which finish them in any order. An offset is
safe once its delivery and every one that was handed out before it are finished, for then nothing
is lost if a restart begins after it.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Ledger:
    """Remembers what was handed out of one partition and is not yet safe.

    Attributes:
        next_offset: Everything below it is safe. It never goes back, though deliveries may be
            handed out again that lie below it.
        next_to_read: One more than the offset that was handed out last.
    """

    next_offset: int
    next_to_read: int
    _in_flight: dict[int, bool] = field(default_factory=dict)  # offset → is it finished?

    def begin(self, offset: int) -> None:
        """Take note of a delivery that was handed out.

        Raises:
            ValueError: Its offset does not lie after those handed out before.
        """
        if offset < self.next_to_read:
            raise ValueError(f"{offset} was handed out after offset {self.next_to_read - 1}")
        self.next_to_read = offset + 1
        self._in_flight[offset] = False

    def finish(self, offset: int) -> None:
        """Take note of a delivery that is finished for good; ``next_offset`` may rise.

        Raises:
            ValueError: It is not in flight.
        """
        if self._in_flight.get(offset) is not False:
            raise ValueError(f"{offset} was not handed out, or is finished already")
        self._in_flight[offset] = True
        while self._in_flight and self._in_flight[oldest := next(iter(self._in_flight))]:
            del self._in_flight[oldest]
            self.next_offset = max(self.next_offset, oldest + 1)

    @property
    def n_in_flight(self) -> int:
        """How many deliveries were handed out and are not safe yet."""
        return len(self._in_flight)
