"""A world of trouble → how far off pictures were dated, by the laws that `s2netd produce` uses."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from engine.grid import US_PER_S, ticks_to_us
from engine.video.steps import SteadyClock
from engine.video.wall_clock import TrustedClock, WallClock
from tests.clock.trouble import FPS, Seen, World

_TICK_S = Fraction(1, 90_000)
_CHUNK = 2 * FPS  # pictures


@dataclass(frozen=True, slots=True)
class DatedChunk:
    """How a chunk was dated.

    Attributes:
        at_us: True time of its first picture.
        off_us: The worst error of a picture in it, later is positive: against the host's clock,
            as that is when the chunk is complete.
        begins_run: A run begins with it.
        clock: Whose clock dated it.
    """

    at_us: int
    off_us: int
    begins_run: bool
    clock: TrustedClock


def dated(world: World) -> Iterator[DatedChunk]:
    """The chunks of a world, one after the other."""
    connection = _Connection(-1)
    chunk: list[tuple[Seen, int]] = []
    for seen in world.pictures():
        if seen.connection != connection.number:
            connection, chunk = _Connection(seen.connection), []
        chunk.append((seen, connection.saw(seen)))
        if len(chunk) == _CHUNK:
            yield connection.dated(chunk)
            chunk = []


class _Connection:
    def __init__(self, number: int) -> None:
        self.number = number
        self._n_chunks = 0
        self._steady = SteadyClock(
            _TICK_S,
            1 / (FPS * _TICK_S),
            most_ahead=round(60 / _TICK_S),
            may_reorder=False,
            on_note=lambda _note: None,
        )
        self._law = WallClock()

    def saw(self, seen: Seen) -> int:
        """The picture's time by the source, as it should be."""
        shift = self._steady.shift_for(seen.stamp, seen.stamp, is_cut=False)
        source_us = ticks_to_us(seen.stamp + shift, _TICK_S)
        self._law.saw(
            source_us,
            now_us=seen.steady_us,
            unix_us=seen.unix_us,
            camera_us=seen.camera_us,
        )
        return self._law.mended_us(source_us)

    def dated(self, chunk: list[tuple[Seen, int]]) -> DatedChunk:
        dating = self._law.date()
        self._n_chunks += 1
        wall_less_true_us = chunk[-1][0].wall_less_true_us
        offs_us = [
            dating.base_us + source_us - (seen.taken_us + wall_less_true_us)
            for seen, source_us in chunk
        ]
        return DatedChunk(
            at_us=chunk[0][0].taken_us,
            off_us=max(offs_us, key=abs),
            begins_run=dating.is_anew or self._n_chunks == 1,
            clock=dating.clock,
        )


def worst_s(chunks: Iterator[DatedChunk]) -> float:
    """The worst error of all, in seconds."""
    return max(abs(chunk.off_us) for chunk in chunks) / US_PER_S
