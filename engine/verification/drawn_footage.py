"""Pictures drawn for the golden set: six scenes that upset low precision, in integers only.

NumPy promises that a bit generator's raw numbers never change, and integer arithmetic is the same
everywhere, so the pictures have the same bytes on every machine and with every version.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from engine.types import UInt8Array

_PATCH_PX = 8
_STEP_FRAMES = 12  # half a stride of a walking person, at 25 frames a second
_BEAT_FRAMES = 3  # between flashes
_SKIN, _COATS = (205, 160, 135), ((160, 40, 50), (50, 70, 170))


class Stage:
    """What the scenes are drawn with.

    Args:
        side_px: Side of the square pictures, H and W.
        seed: Seed of texture and noise.

    Attributes:
        side_px: As given.
        texture: uint8 (H, W, 3), coloured patches.
        rows: int64 (H, 1), each pixel's row.
        columns: int64 (1, W), each pixel's column.
    """

    def __init__(self, side_px: int, seed: int) -> None:
        self.side_px = side_px
        self._bits = np.random.PCG64(seed)
        n_patches = -(-side_px // _PATCH_PX)
        patches = self.noise(n_patches)
        large = patches.repeat(_PATCH_PX, axis=0).repeat(_PATCH_PX, axis=1)
        self.texture: UInt8Array = np.ascontiguousarray(large[:side_px, :side_px])
        self.rows = np.arange(side_px, dtype=np.int64)[:, None]
        self.columns = np.arange(side_px, dtype=np.int64)[None, :]

    def noise(self, side_px: int | None = None) -> UInt8Array:
        """Fresh random pixels, uint8 (H, W, 3), with sides of ``side_px`` or the stage's own."""
        side = side_px or self.side_px
        n_bytes = side * side * 3
        words = np.asarray(self._bits.random_raw(-(-n_bytes // 8)), np.dtype("<u8"))
        return words.view(np.uint8)[:n_bytes].reshape(side, side, 3)

    def ellipse(self, x: int, y: int, half_width: int, half_height: int) -> npt.NDArray[np.bool_]:
        """An ellipse about column ``x`` and row ``y``, bool (H, W), True inside."""
        wide, high = max(half_width, 1), max(half_height, 1)
        across, down = (self.columns - x) * high, (self.rows - y) * wide
        return np.asarray(across**2 + down**2 <= (wide * high) ** 2, np.bool_)


Scene = Callable[[Stage, int], UInt8Array]  # stage and number of the frame → uint8 (H, W, 3)


def _motion(stage: Stage, frame: int) -> UInt8Array:
    """The whole picture (H, W, 3) moves, as if the camera panned."""
    return np.roll(stage.texture, (frame, 2 * frame), axis=(0, 1))


def _people(stage: Stage, frame: int) -> UInt8Array:
    """Two people walk through each other before a still background, (H, W, 3)."""
    picture = stage.texture // 6 + 90
    side = stage.side_px
    for number, coat in enumerate(_COATS):
        walked = frame * max(side // 80, 1) % side
        _person(stage, picture, side - walked if number else walked, frame, coat)
    return picture


def _person(
    stage: Stage, picture: UInt8Array, x: int, frame: int, coat: tuple[int, int, int]
) -> None:
    """Draw a person into ``picture``, uint8 (H, W, 3)."""
    unit = max(stage.side_px // 20, 1)  # a person is twelve of these tall
    foot = stage.side_px - 2 * unit
    swing = abs(frame % (2 * _STEP_FRAMES) - _STEP_FRAMES) - _STEP_FRAMES // 2
    reach = swing * unit // (_STEP_FRAMES // 2)
    for way in (1, -1):
        picture[stage.ellipse(x + way * reach, foot - 2 * unit, unit // 2, 3 * unit)] = 45
        picture[stage.ellipse(x - way * 2 * reach, foot - 7 * unit, unit, unit // 2)] = _SKIN
    picture[stage.ellipse(x, foot - 7 * unit, 3 * unit // 2, 3 * unit)] = coat
    picture[stage.ellipse(x, foot - 11 * unit, unit, unit)] = _SKIN


def _flicker(stage: Stage, frame: int) -> UInt8Array:
    """A still picture (H, W, 3) under light that comes and goes."""
    return stage.texture if frame // _BEAT_FRAMES % 2 else stage.texture // 6


def _black(stage: Stage, _frame: int) -> UInt8Array:
    """A black picture, (H, W, 3)."""
    return np.zeros_like(stage.texture)


def _noise(stage: Stage, _frame: int) -> UInt8Array:
    """Random pixels, (H, W, 3)."""
    return stage.noise()


def _glare(stage: Stage, frame: int) -> UInt8Array:
    """Moving texture (H, W, 3) of 0 and 255, the darkest and the brightest that pixels can be."""
    moved = np.roll(stage.texture, -3 * frame, axis=1)
    return np.where(moved >= 96, np.uint8(255), np.uint8(0))  # noqa: PLR2004 - most of it bright


SCENES: tuple[Scene, ...] = (_motion, _people, _flicker, _black, _noise, _glare)
