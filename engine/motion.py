"""Does a snippet show anything that the one last looked at did not? Pure.

Brightness is averaged over the blocks of a coarse raster, which noise and compression change
little. A snippet is *calm* if no block changes within it by more than it usually does, and *still*
if moreover no block differs from the last calm snippet that was looked at, in the light that there
is now.

What is usual follows from the camera. Noise is the change of its median block, in which nothing
moves unless half the picture does. What moves all the time and means nothing, leaves in the wind
or a clock in the picture, is known by the backbone: where a look gave about the feature of the
look before it, what moved in between did not matter, and that much motion of these blocks is
usual. What was learned so counts from the next turn of ``TURN`` snippets on, so that it does not
matter how many snippets are looked at in one call.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.types import FloatArray, UInt8Array

Float16Array = npt.NDArray[np.float16]

TURN = 16
# The raster has at most so many blocks a side: of a camera's picture, a block is as large as a
# person's arm.
_BLOCKS = 20
# Levels of brightness, of 255. Codecs pulse by a level or two at key frames.
_FLOOR = 3.0
# Over 16 frames of pure noise, the block that changes most of 400 changes 1.6 times as much as
# their median; noise that lasts for some frames spreads further.
_NOISE_FACTOR = 2.5
# What is usual in a block, and more than that.
_HABIT_FACTOR = 1.5
# How much of the way to what was seen habits go, up and down, at each look that showed nothing.
_HABIT_RISE, _HABIT_FALL = 0.25, 0.02
# Noise is taken to be low at once and to be high by and by, so that motion is not taken for it.
_NOISE_RISE = 0.05
# Slow light is no motion; a picture that changes as a whole, by so many levels, is another one.
_MOST_LIGHT = 10.0
# Blocks of so many levels tell by how much the light has grown, if they are so much of a picture.
_BRIGHT, _BRIGHT_SHARE = 32.0, 0.25
# Two features are about the same if they are no further apart than by so many times the least
# distance of this camera, and by no more than that share of their length. I3D's features of
# footage in which nothing happens were seen to be 0.07 to 0.14 apart, and nine in ten of those of
# moving people 0.16 and more.
_SAME_FACTOR, _MOST_SAME = 1.5, 0.15
_N_PLANES = 3  # of a gate's arrays in a snapshot


@dataclass(frozen=True, slots=True)
class Sight:
    """What a snippet's brightness tells; both float32 (R, S), a value for each block, in levels.

    Attributes:
        mean: Over the frames.
        change: The largest less the smallest of the frames.
    """

    mean: FloatArray
    change: FloatArray


@dataclass(frozen=True, slots=True)
class GateState:
    """Everything that a gate remembers.

    Attributes:
        noise: The change of the median block, in levels; None before there was a snippet.
        apart: How far features are apart where nothing happens, as a share of their length; None
            before there were two.
        looked_index: The snippet that was last looked at.
        is_calm: It was calm, so that others can be compared with it.
        turn: The turn that habits were last taken over in.
        planes: float16 (3, R, S): brightness when last looked, the habit of each block, and the
            habit that counts from the next turn on; None before there was a look.
    """

    noise: float | None = None
    apart: float | None = None
    looked_index: int = 0
    is_calm: bool = False
    turn: int = 0
    planes: Float16Array | None = None

    def to_json(self) -> list[Any]:
        """Plain values for a snapshot, which keeps the planes as an array."""
        return [self.noise, self.apart, self.looked_index, self.is_calm, self.turn]

    @classmethod
    def from_json(cls, plain: object, planes: npt.NDArray[Any] | None) -> "GateState":
        """The inverse of ``to_json``.

        Raises:
            TypeError, ValueError: It is no state.
        """
        if not isinstance(plain, list):
            raise TypeError(f"a motion gate is {plain!r}, wanted a list")
        noise, apart, looked_index, is_calm, turn = plain
        for level in (noise, apart):
            if level is not None and not (isinstance(level, float) and 0 <= level < np.inf):
                raise ValueError(f"a motion gate holds {level!r}, wanted a level of noise")
        if type(looked_index) is not int or type(turn) is not int:
            raise ValueError(f"a motion gate is {plain!r}, wanted numbers of snippets")
        if planes is not None:
            is_whole = planes.ndim == _N_PLANES and len(planes) == _N_PLANES
            if planes.dtype != np.float16 or not is_whole or not np.isfinite(planes).all():
                raise ValueError(f"a motion gate's planes are {planes.dtype} {planes.shape}")
        return cls(
            noise, apart, looked_index, is_calm is True and planes is not None, turn, planes
        )


class MotionGate:
    """Tells which snippets show what the one last looked at did.

    Args:
        look_every: Of so many snippets in a row one is looked at, whatever it shows, so that
            nothing sleeps for ever; None: there is no such limit.
        state: Where an earlier gate stopped.
    """

    def __init__(self, look_every: int | None, state: GateState | None = None) -> None:
        state = state or GateState()
        self._look_every = look_every
        self._noise, self._apart = state.noise, state.apart
        self._looked_index, self._is_calm = state.looked_index, state.is_calm
        self._turn = state.turn
        self._planes = None if state.planes is None else state.planes.copy()

    @property
    def has_seen(self) -> bool:
        """True if it knows anything that a new one does not."""
        return self._planes is not None

    @property
    def state(self) -> GateState:
        """What must be kept to go on later."""
        planes = None if self._planes is None else self._planes.copy()
        return GateState(
            self._noise, self._apart, self._looked_index, self._is_calm, self._turn, planes
        )

    def see(self, rgb: UInt8Array, index: int) -> Sight:
        """Take in a snippet's frames, uint8 (L, H, W, 3); every snippet once, in order."""
        sight = sight_of(rgb)
        self._noise = _lowest(self._noise, float(np.median(sight.change)))
        if self._planes is None or self._planes.shape[1:] != sight.mean.shape:
            self._planes = np.zeros((_N_PLANES, *sight.mean.shape), np.float16)
            self._is_calm = False
        if index // TURN != self._turn:
            self._turn = index // TURN
            self._planes[1] = self._planes[2]
        return sight

    def is_still(self, sight: Sight, index: int) -> bool:
        """True if there is no need to look at a snippet: it shows what the last look showed."""
        if self._planes is None or not self._is_calm or not self._shows_nothing(sight):
            return False
        if self._look_every is not None and index - self._looked_index >= self._look_every:
            return False
        before = self._planes[0].astype(np.float32)
        expected, light = _in_the_light_of(sight.mean, before)
        most = self._usual(_FLOOR + (self._noise or 0.0))
        differs = np.abs(sight.mean - expected) > most
        return light <= _MOST_LIGHT and not bool(differs.any())

    def looked(self, sight: Sight, index: int) -> None:
        """Take note that a snippet was looked at; later ones are compared with it."""
        self._looked_index = index
        self._is_calm = self._shows_nothing(sight)
        if self._planes is not None:
            self._planes[0] = sight.mean

    def learn(self, sight: Sight, distance: float) -> None:
        """Take note of what a look gave.

        Args:
            sight: What was looked at.
            distance: How far its feature is from that of the look before, as a share of the
                length of the latter.
        """
        if not np.isfinite(distance) or self._planes is None:
            return
        self._apart = _lowest(self._apart, distance)
        if distance > min(_SAME_FACTOR * self._apart, _MOST_SAME):
            return
        habit = self._planes[2].astype(np.float32)
        way = sight.change - habit
        self._planes[2] = habit + np.where(way > 0, _HABIT_RISE, _HABIT_FALL) * way

    def broke(self) -> None:
        """Footage is missing: the next snippet is looked at."""
        self._is_calm = False

    def _shows_nothing(self, sight: Sight) -> bool:
        most = self._usual(_FLOOR + _NOISE_FACTOR * (self._noise or 0.0))
        return bool((sight.change <= most).all())

    def _usual(self, least: float) -> FloatArray:
        """How much each block may change, float32 (R, S)."""
        if self._planes is None:
            raise AssertionError("a snippet is seen before it is judged")
        habit = self._planes[1].astype(np.float32)
        return np.asarray(np.maximum(np.float32(least), np.float32(_HABIT_FACTOR) * habit))


def _lowest(before: float | None, now: float) -> float:
    """The lowest level lately: down at once, up by and by."""
    return now if before is None else min(now, before + _NOISE_RISE * (now - before))


def _in_the_light_of(now: FloatArray, before: FloatArray) -> tuple[FloatArray, float]:
    """What a place that looked like ``before`` (R, S) would show in the light of ``now`` (R, S).

    Light multiplies, in levels as in what they were made of, for gamma is a power: a white wall
    grows by more levels than a grey one. What moves in less than half of the blocks that tell by
    how much does not count.

    Returns:
        The expected levels (R, S), and by how many those that tell have changed (their median).
    """
    tells = before >= _BRIGHT
    if tells.mean() < _BRIGHT_SHARE:  # in the dark a level more or less is no measure of gain
        expected, tells = before + np.median(now - before), np.ones_like(tells)
    else:
        expected = before * np.median(now[tells] / before[tells])
    return expected, float(np.median(np.abs(expected - before)[tells]))


def sight_of(rgb: UInt8Array) -> Sight:
    """The brightness of frames, uint8 (L, H, W, 3), block by block."""
    height, width = rgb.shape[1:3]
    block_px = max(-(-min(height, width) // _BLOCKS), 1)
    step = 2 if block_px % 2 == 0 else 1  # every other pixel says as much in a quarter of the time
    n_rows, n_columns = height // block_px, width // block_px
    side = block_px // step
    green = rgb[:, : n_rows * block_px : step, : n_columns * block_px : step, 1]
    # Slice by slice, which takes numpy a quarter of the time of a sum over both axes of a block.
    rows = green[:, ::side].astype(np.uint16)
    for row in range(1, side):
        rows += green[:, row::side]
    sums = rows[:, :, ::side].astype(np.uint32)  # exact, so alike on every machine
    for column in range(1, side):
        sums += rows[:, :, column::side]
    levels = sums.astype(np.float32) / np.float32(side * side)  # (L, R, S)
    return Sight(levels.mean(axis=0), levels.max(axis=0) - levels.min(axis=0))
