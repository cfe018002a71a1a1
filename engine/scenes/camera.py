"""Fixed cameras: what they look at, from where, and how well."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from engine.scenes.difficulty import PLAIN, Difficulty
from engine.types import UInt8Array

WIDTH_PX, HEIGHT_PX, FPS = 320, 240, 25
SCALE = 2  # pictures are drawn twice as large and then averaged, for smooth edges

_FAMILY = 20260  # cameras are the same in every draw; only what happens differs
N_CAMERAS = 6
SIZES = (0.93, 1.07)  # of the smallest and the tallest, as a share of those who stand beside them


@dataclass(frozen=True, slots=True)
class Camera:
    """A place and a lens.

    Attributes:
        name: ``cam1``..., or ``far1``... from further away.
        seed: Of its backdrop.
        tilt: Looks down by this many radians.
        far_y_px, near_y_px: Where the floor people stand on begins and ends in the picture.
        far_person_px, near_person_px: How tall people are there.
        noise: Standard deviation of the sensor's noise, of 255.
        exposure: Factor on brightness.
        tint: Factors on red, green, blue.
        is_outdoors: Sky, plants and cars instead of walls and doors.
    """

    name: str
    seed: int
    tilt: float
    far_y_px: float
    near_y_px: float
    far_person_px: float
    near_person_px: float
    noise: float
    exposure: float
    tint: tuple[float, float, float]
    is_outdoors: bool

    def floor_y_px(self, depth: float) -> float:
        """Row of the feet, in pixels, at a depth of 0 (far) to 1 (near)."""
        return self.far_y_px + depth * (self.near_y_px - self.far_y_px)

    def person_px(self, depth: float) -> float:
        """Height of a person, in pixels, at a depth of 0 (far) to 1 (near)."""
        return self.far_person_px + depth * (self.near_person_px - self.far_person_px)


def camera(number: int, difficulty: Difficulty = PLAIN) -> Camera:
    """Camera 1..``N_CAMERAS``; the last is kept out of training.

    Args:
        number: Which one.
        difficulty: May want people of another height: the same camera, further away.

    Raises:
        ValueError: There is no such camera.
    """
    if not 1 <= number <= N_CAMERAS:
        raise ValueError(f"camera is {number}, wanted 1..{N_CAMERAS}")
    seed = _FAMILY + number
    rng = np.random.default_rng(seed)
    far_person_px = float(rng.uniform(104, 116))
    place = Camera(
        name=f"cam{number}",
        seed=seed,
        tilt=float(rng.uniform(0.18, 0.42)),
        far_y_px=float(rng.uniform(168, 182)),
        near_y_px=float(rng.uniform(212, 226)),
        far_person_px=far_person_px,
        near_person_px=far_person_px * float(rng.uniform(1.12, 1.25)),
        noise=float(rng.uniform(2.0, 5.0)),
        exposure=float(rng.uniform(0.8, 1.1)),
        tint=(float(rng.uniform(0.9, 1.08)), 1.0, float(rng.uniform(0.9, 1.08))),
        is_outdoors=number % 2 == 0,
    )
    if difficulty.person_px is None:
        return place
    return _further_away(place, *difficulty.person_px)


def _further_away(place: Camera, shortest_px: float, tallest_px: float) -> Camera:
    """The place from so far that those who stand are of these heights in the picture.

    It has a name of its own, for what it sees on average is something else.
    """
    rng = np.random.default_rng([place.seed, 4])
    # Looking down makes the far ones shorter still; a step beyond the floor's edge is two percent.
    far = shortest_px / SIZES[0] / np.cos(place.tilt) * 1.05
    near = tallest_px / SIZES[1] / 1.02
    return replace(
        place,
        name=place.name.replace("cam", "far"),
        far_y_px=place.near_y_px - float(rng.uniform(72, 90)),
        far_person_px=float(far + rng.uniform(0, 0.12) * (near - far)),
        near_person_px=float(near - rng.uniform(0, 0.12) * (near - far)),
    )


def backdrop(place: Camera) -> UInt8Array:
    """What the camera sees when nobody is there, at twice the size: uint8 (480, 640, 3)."""
    rng = np.random.default_rng([place.seed, 1])
    width, height = SCALE * WIDTH_PX, SCALE * HEIGHT_PX
    horizon = int(SCALE * (place.far_y_px - 0.18 * HEIGHT_PX - 8))
    picture = np.zeros((height, width, 3), np.float32)
    picture[:horizon] = _gradient(rng, horizon, *((120, 210) if place.is_outdoors else (110, 190)))
    picture[horizon:] = _gradient(rng, height - horizon, 80, 160)
    canvas = picture.astype(np.uint8)
    _floor_lines(canvas, horizon, rng)
    for _ in range(int(rng.integers(4, 8))):
        _thing(canvas, horizon, rng, place)
    grain = rng.normal(0, 4, (height // 4, width // 4, 1)).astype(np.float32)
    coarse = cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    shade = np.linspace(float(rng.uniform(0.8, 1)), float(rng.uniform(0.8, 1)), width)
    lit = (canvas + coarse) * shade[None, :, None] * np.array(place.tint) * place.exposure
    return np.asarray(np.clip(lit, 0, 255), np.uint8)


def _colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = rng.integers(low, high, 3).tolist()
    return red, green, blue


def _gradient(
    rng: np.random.Generator, rows: int, low: int, high: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """One colour fading into another from row to row, float32 (rows, 1, 3)."""
    grey = rng.uniform(low, high)
    first = grey + rng.uniform(-22, 22, 3)
    last = grey + rng.uniform(-22, 22, 3)
    share = np.linspace(0, 1, rows)[:, None, None]
    return np.asarray((1 - share) * first + share * last, np.float32)


def _floor_lines(canvas: UInt8Array, horizon: int, rng: np.random.Generator) -> None:
    """Draw the floor's lines into ``canvas``, uint8 (480, 640, 3)."""
    height, width = canvas.shape[:2]
    colour = tuple(int(v) for v in canvas[-1, 0] * float(rng.uniform(0.75, 0.95)))
    middle = width / 2 + float(rng.uniform(-80, 80))
    for x in np.linspace(-width, 2 * width, int(rng.integers(10, 22))):
        start = (int(middle + (x - middle) * 0.35), horizon)
        cv2.line(canvas, start, (int(x), height), colour, 2, cv2.LINE_AA)
    for share in np.linspace(0.05, 1, int(rng.integers(5, 9))) ** 1.7:
        y = int(horizon + share * (height - horizon))
        cv2.line(canvas, (0, y), (width, y), colour, 2, cv2.LINE_AA)


def _thing(canvas: UInt8Array, horizon: int, rng: np.random.Generator, place: Camera) -> None:
    """Draw a door, window, poster, cupboard, tree or parked car on the wall or at its foot.

    ``canvas`` is uint8 (480, 640, 3).
    """
    width = canvas.shape[1]
    x = int(rng.uniform(0, width - 60))
    wide, high = int(rng.uniform(40, 130)), int(rng.uniform(50, 170))
    colour = _colour(rng, 40, 220)
    darker = tuple(int(0.7 * v) for v in colour)
    if place.is_outdoors and rng.uniform() < 0.5:  # noqa: PLR2004 - as many trees as cars and walls
        cv2.rectangle(canvas, (x + 12, horizon - high), (x + 24, horizon + 8), (70, 55, 40), -1)
        for _ in range(14):
            at = (x + 18 + int(rng.normal(0, 24)), horizon - high + int(rng.normal(0, 20)))
            leaf = (int(rng.uniform(20, 80)), int(rng.uniform(80, 150)), int(rng.uniform(20, 70)))
            cv2.circle(canvas, at, int(rng.uniform(10, 24)), leaf, -1, cv2.LINE_AA)
        return
    stands = rng.uniform() < 0.5  # noqa: PLR2004 - or hangs
    bottom = horizon + 10 if stands else horizon - int(rng.uniform(20, 70))
    cv2.rectangle(canvas, (x, bottom - high), (x + wide, bottom), colour, -1)
    cv2.rectangle(canvas, (x, bottom - high), (x + wide, bottom), darker, 3)
    for share in rng.uniform(0.15, 0.85, int(rng.integers(0, 4))):
        y = int(bottom - share * high)
        cv2.line(canvas, (x, y), (x + wide, y), darker, 2)
