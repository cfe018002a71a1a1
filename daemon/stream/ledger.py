"""In-flight offsets → the highest offset that is safe to commit, per partition. Pure.

Deliveries of one partition go to several cameras, which finish them in any order. An offset is
safe once its delivery and every one that was handed out before it are finished, for then a commit
loses nothing.
"""

from dataclasses import dataclass, field

from daemon.sources.base import Position


@dataclass(slots=True)
class _Tenure:
    """What is known of one partition from when it is taken up until it is given up."""

    newest: int
    in_flight: dict[int, bool]  # offset → whether it is finished; in the order of offsets


@dataclass(slots=True)
class Ledger:
    """Remembers what was handed out and is not yet safe."""

    _tenures: dict[str, _Tenure] = field(default_factory=dict)
    _safe: dict[str, int] = field(default_factory=dict)

    def begin(self, position: Position) -> None:
        """Take note of a delivery that was handed out.

        Raises:
            ValueError: Its offset does not lie after those handed out before.
        """
        tenure = self._tenures.setdefault(position.partition, _Tenure(-1, {}))
        if position.offset <= tenure.newest:
            raise ValueError(f"{position} was handed out after offset {tenure.newest}")
        tenure.newest = position.offset
        tenure.in_flight[position.offset] = False

    def finish(self, position: Position) -> Position | None:
        """Take note of a delivery that is finished for good.

        Returns:
            The highest position that is safe to commit, if it rose, else None. It is also None for
            a delivery of a partition that was given up in the meantime.
        """
        tenure = self._tenures.get(position.partition)
        if tenure is None or position.offset not in tenure.in_flight:
            return None
        tenure.in_flight[position.offset] = True
        return self._rise(position.partition, tenure.in_flight)

    def forget(self, partition: str) -> None:
        """Forget a partition that was given up; its next owner reads the unfinished deliveries."""
        self._tenures.pop(partition, None)

    def in_flight(self, partition: str) -> int:
        """How many deliveries were handed out and are not safe yet."""
        tenure = self._tenures.get(partition)
        return len(tenure.in_flight) if tenure else 0

    def _rise(self, partition: str, in_flight: dict[int, bool]) -> Position | None:
        before = self._safe.get(partition, -1)
        safe = before
        while in_flight and in_flight[oldest := next(iter(in_flight))]:
            del in_flight[oldest]
            safe = max(safe, oldest)
        self._safe[partition] = safe
        return Position(partition, safe) if safe > before else None
