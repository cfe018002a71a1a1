"""A picture → what the camera's sensor gives: light that drifts, colour, shake and noise."""

from dataclasses import dataclass

import cv2
import numpy as np

from engine.scenes.camera import HEIGHT_PX, SCALE, WIDTH_PX, Camera
from engine.scenes.difficulty import Difficulty, Range
from engine.types import UInt8Array

_N_NOISES = 6
_SWAY_HZ = ((0.4, 1.1), (2.0, 3.5), (5.0, 9.0))  # a pole in the wind, its bending, its hum
_SWAY_SHARES = (0.6, 0.3, 0.1)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The light, the sensor and the pole of one video.

    Attributes:
        is_night: It is dark.
        gain: Factor on brightness.
        noise: Factor on the camera's own noise.
        colour: How much of it is left, 0..1.
        bits_per_second: What the encoder may send; None: as many as it takes.
        drift: Share by which the light rises and falls.
        drift_s: Seconds in which it does so once.
        drift_at: Where in that the video begins, in radians.
        shake_px: Standard deviation of the camera's sway, in pixels, in each direction.
        seed: Of the sway.
    """

    is_night: bool
    gain: float
    noise: float
    colour: float
    bits_per_second: int | None
    drift: float
    drift_s: float
    drift_at: float
    shake_px: float
    seed: int

    def light_at(self, time_s: float) -> float:
        """Factor on brightness at a moment; slow, for it is the sun's and the clouds'."""
        wave = np.sin(2 * np.pi * time_s / self.drift_s + self.drift_at)
        return self.gain * float(1 + self.drift * wave)


def conditions(difficulty: Difficulty, seed: int) -> Conditions:
    """What one video is recorded under; the same seed gives the same."""
    rng = np.random.default_rng([seed, 7, 1])

    def between(given: Range) -> float:
        return float(rng.uniform(*given))

    is_night = bool(rng.uniform() < difficulty.nights)
    sight = difficulty.night if is_night else difficulty.day
    kbits = sight.kbits_per_second
    return Conditions(
        is_night=is_night,
        gain=between(sight.gain),
        noise=between(sight.noise),
        colour=between(sight.colour),
        bits_per_second=None if kbits is None else round(1000 * between(kbits)),
        drift=between(difficulty.drift),
        drift_s=between(difficulty.drift_s),
        drift_at=between((0, 2 * np.pi)),
        shake_px=between(difficulty.shake_px),
        seed=seed,
    )


class Sensor:
    """One camera during one video.

    Args:
        camera: Whose noise it is.
        under: What it records under.
        rng: Of noise and the time of day; what is drawn from it, and in which order, is the same
            whatever the conditions are.
    """

    def __init__(self, camera: Camera, under: Conditions, rng: np.random.Generator) -> None:
        self._under = under
        self._rng = rng
        self._light = float(rng.uniform(0.88, 1.12))  # the time of day
        self._flicker_hz = float(rng.uniform(0.03, 0.15))
        shape = (_N_NOISES, HEIGHT_PX + 32, WIDTH_PX + 32, 3)
        self._noises = rng.normal(0, camera.noise * under.noise, shape).astype(np.int16)
        self._sway = _Sway(under)

    def sense(self, canvas: UInt8Array, time_s: float) -> UInt8Array:
        """What is drawn, uint8 (480, 640, 3), → the picture, uint8 (240, 320, 3)."""
        shaken = self._sway.moved(canvas, time_s)
        small = cv2.resize(shaken, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)
        gain = self._light * (1 + 0.03 * np.sin(2 * np.pi * self._flicker_hz * time_s))
        gain = float(gain) * self._under.light_at(time_s)
        lit = cv2.convertScaleAbs(self._faded(small), alpha=gain).astype(np.int16)
        row, column = self._rng.integers(0, 32, 2).tolist()
        grain = self._noises[int(self._rng.integers(_N_NOISES))]
        lit += grain[row : row + HEIGHT_PX, column : column + WIDTH_PX]
        return np.asarray(np.clip(lit, 0, 255), np.uint8)

    def _faded(self, picture: "cv2.typing.MatLike") -> "cv2.typing.MatLike":
        """The picture (240, 320, 3) with as much colour as is left of it."""
        if self._under.colour == 1:
            return picture
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(picture, self._under.colour, grey, 1 - self._under.colour, 0)


class _Sway:
    """Where the camera has moved to: a sum of slow and fast waves, in each direction."""

    def __init__(self, under: Conditions) -> None:
        rng = np.random.default_rng([under.seed, 7, 2])
        # A sine's standard deviation is 1 / sqrt(2) of its amplitude.
        loudness = np.sqrt(2) * np.array(_SWAY_SHARES) / np.linalg.norm(_SWAY_SHARES)
        self._amplitudes = SCALE * under.shake_px * loudness  # (3,)
        slowest, fastest = np.transpose(_SWAY_HZ)
        self._hz = rng.uniform(slowest, fastest, (2, 3))
        self._phases = rng.uniform(0, 2 * np.pi, (2, 3))
        self._is_still = under.shake_px == 0

    def moved(self, canvas: UInt8Array, time_s: float) -> UInt8Array:
        """The canvas, uint8 (480, 640, 3), as seen from there."""
        if self._is_still:
            return canvas
        waves = np.sin(2 * np.pi * self._hz * time_s + self._phases)
        across, down = (self._amplitudes * waves).sum(axis=1).tolist()
        matrix = np.array([[1, 0, across], [0, 1, down]], np.float64)
        size = canvas.shape[1], canvas.shape[0]
        moved = cv2.warpAffine(canvas, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.uint8)
