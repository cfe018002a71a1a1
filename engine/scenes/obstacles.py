"""What stands between camera and people: pillars, plants and parked cars."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from engine.scenes.body import Points
from engine.scenes.camera import HEIGHT_PX, SCALE, WIDTH_PX, Camera
from engine.scenes.difficulty import Difficulty
from engine.types import UInt8Array

Colour = tuple[int, int, int]

# Kind → width and height, in heights of a person who stands there.
_SIZES = {"pillar": (0.24, 2.1), "plant": (0.7, 0.6), "car": (1.9, 0.62)}
_FIXTURES = ("pillar", "plant")
_BONNET, _ROOF = 0.62, 0.55  # a car's bonnet and roof, as shares of its height and half width
_X_RANGE_PX = (60.0, WIDTH_PX - 60.0)  # where people are


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something in the foreground; it hides whoever stands further away.

    Attributes:
        kind: ``pillar``, ``plant`` or ``car``.
        x_px: Its middle.
        depth: Where it stands, 0 (far) to 1 (near).
        foot_px: Row of its foot.
        wide_px, high_px: Its size.
        colour: Red, green, blue.
        seed: Of a plant's leaves.
    """

    kind: str
    x_px: float
    depth: float
    foot_px: float
    wide_px: float
    high_px: float
    colour: Colour
    seed: int

    def hides(self, pixels: Points) -> npt.NDArray[np.bool_]:
        """Which of the points (N, 2), in pixels, lie behind it: bool (N,)."""
        x = np.abs(pixels[:, 0] - self.x_px) / (self.wide_px / 2)
        y = (self.foot_px - pixels[:, 1]) / self.high_px
        if self.kind == "plant":
            return np.asarray(x**2 + (2 * y - 1) ** 2 <= 1)
        inside = (x <= 1) & (y >= 0) & (y <= 1)
        if self.kind == "car":
            inside &= (y <= _BONNET) | (x <= _ROOF)
        return np.asarray(inside)

    def draw(self, canvas: UInt8Array, light: npt.NDArray[np.float64]) -> None:
        """Draw it into ``canvas``, uint8 (480, 640, 3); ``light`` (3,): factors on the colours."""
        foot, high = SCALE * self.foot_px, SCALE * self.high_px
        left, right = (SCALE * (self.x_px + side * self.wide_px / 2) for side in (-1, 1))
        if self.kind == "plant":
            _plant(canvas, self, light)
        elif self.kind == "car":
            _car(canvas, (left, right), foot, high, _lit(self.colour, light))
        else:
            body = _lit(self.colour, light)
            darker = _lit(self.colour, 0.7 * light)
            shade = left + 0.3 * (right - left)
            _box(canvas, left, foot - high, right, foot, body)
            _box(canvas, left, foot - high, shade, foot, darker)


class Cutout:
    """An obstacle that is drawn once and pasted into many pictures.

    Args:
        obstacle: What.
        light: float64 (3,), factors on its red, green and blue.
    """

    def __init__(self, obstacle: Obstacle, light: npt.NDArray[np.float64]) -> None:
        self.depth = obstacle.depth
        # Drawn on black and on white, it differs wherever the ground shows through.
        size = (SCALE * HEIGHT_PX, SCALE * WIDTH_PX, 3)
        on_black, on_white = np.zeros(size, np.uint8), np.full(size, 255, np.uint8)
        for canvas in (on_black, on_white):
            obstacle.draw(canvas, light)
        solid = (on_black == on_white).all(axis=-1)
        rows, columns = (np.flatnonzero(solid.any(axis=axis)) for axis in (1, 0))
        self._box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        self._solid = np.repeat(solid[self._box][..., None], 3, axis=-1)
        self._picture = on_black[self._box].copy()

    def paste(self, canvas: UInt8Array) -> None:
        """Draw it into ``canvas``, uint8 (480, 640, 3)."""
        np.copyto(canvas[self._box], self._picture, where=self._solid)


def obstacles(camera: Camera, difficulty: Difficulty, seed: int) -> tuple[Obstacle, ...]:
    """What stands before this camera: the same fixtures in all videos, other cars in each.

    Args:
        camera: Where.
        difficulty: How many.
        seed: Of the video.
    """
    placed = []
    place = np.random.default_rng([camera.seed, 6])
    for _ in range(_number(place, difficulty.fixtures)):
        kind = _FIXTURES[int(place.integers(len(_FIXTURES)))]
        placed.append(_obstacle(kind, camera, place))
    video = np.random.default_rng([seed, 6, 1])
    placed += [_obstacle("car", camera, video) for _ in range(_number(video, difficulty.cars))]
    return tuple(placed)


def _number(rng: np.random.Generator, fewest_and_most: tuple[int, int]) -> int:
    return int(rng.integers(fewest_and_most[0], fewest_and_most[1] + 1))


def _obstacle(kind: str, camera: Camera, rng: np.random.Generator) -> Obstacle:
    depth = float(rng.uniform(0.35, 0.9))
    person_px = camera.person_px(depth)
    wide, high = _SIZES[kind]
    grow = float(rng.uniform(0.85, 1.2))
    red, green, blue = rng.integers(40, 200, 3).tolist()
    return Obstacle(
        kind=kind,
        x_px=float(rng.uniform(*_X_RANGE_PX)),
        depth=depth,
        foot_px=camera.floor_y_px(depth),
        wide_px=grow * wide * person_px,
        high_px=grow * high * person_px,
        colour=(red, green, blue),
        seed=int(rng.integers(1 << 30)),
    )


def _lit(colour: Colour, light: npt.NDArray[np.float64]) -> Colour:
    red, green, blue = np.clip(np.array(colour) * light, 0, 255).astype(int).tolist()
    return red, green, blue


def _box(
    canvas: UInt8Array, left: float, top: float, right: float, bottom: float, colour: Colour
) -> None:
    cv2.rectangle(canvas, (int(left), int(top)), (int(right), int(bottom)), colour, -1)


def _plant(canvas: UInt8Array, plant: Obstacle, light: npt.NDArray[np.float64]) -> None:
    """Draw leaves that fill the plant's ellipse."""
    rng = np.random.default_rng(plant.seed)
    middle = np.array([plant.x_px, plant.foot_px - plant.high_px / 2]) * SCALE
    half = np.array([plant.wide_px, plant.high_px]) / 2 * SCALE
    centre = (int(middle[0]), int(middle[1]))
    axes = (int(0.9 * half[0]), int(0.9 * half[1]))
    cv2.ellipse(canvas, centre, axes, 0, 0, 360, _lit((35, 70, 30), light), -1, cv2.LINE_AA)
    for _ in range(60):
        angle, away = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
        at = middle + 0.85 * away * half * np.array([np.cos(angle), np.sin(angle)])
        leaf = (int(rng.uniform(20, 70)), int(rng.uniform(70, 140)), int(rng.uniform(20, 60)))
        radius = max(2, int(0.14 * half.min()))
        cv2.circle(canvas, (int(at[0]), int(at[1])), radius, _lit(leaf, light), -1, cv2.LINE_AA)


def _car(
    canvas: UInt8Array, sides: tuple[float, float], foot: float, high: float, colour: Colour
) -> None:
    """Draw a parked car, seen from its side."""
    left, right = sides
    middle, half = (left + right) / 2, (right - left) / 2
    lower, roof = foot - _BONNET * high, foot - high
    glass = (50, 60, 70)
    _box(canvas, left, lower, right, foot - 0.12 * high, colour)
    _box(canvas, middle - _ROOF * half, roof, middle + _ROOF * half, lower, colour)
    window = 0.9 * _ROOF * half
    _box(canvas, middle - window, roof + 0.06 * high, middle + window, lower, glass)
    _box(canvas, middle - 0.03 * half, roof, middle + 0.03 * half, lower, colour)
    for x in (left + 0.4 * half, right - 0.4 * half):
        cv2.circle(
            canvas, (int(x), int(foot - 0.16 * high)), int(0.2 * high), (20, 20, 20), -1,
            cv2.LINE_AA,
        )  # fmt: skip
