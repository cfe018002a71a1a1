"""A script → pictures, as a small camera would see it."""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from engine.scenes.body import HEAD, HEAD_RADIUS, LIMBS, Points
from engine.scenes.camera import FPS, SCALE, WIDTH_PX, Camera, backdrop
from engine.scenes.obstacles import Cutout
from engine.scenes.script import Actor, Script
from engine.scenes.sensing import Sensor, conditions
from engine.types import UInt8Array

_SUBPIXEL_BITS = 4
_HALF = 127
_CAR_S = 4  # seconds that a car takes to pass by


def pictures(script: Script) -> Iterator[UInt8Array]:
    """Every frame: uint8 (240, 320, 3), RGB, 25 a second."""
    scene = _Scene(script)
    for index in range(round(script.duration_s * FPS)):
        yield scene.draw(index)


class _Scene:
    def __init__(self, script: Script) -> None:
        self._script = script
        camera = script.camera
        self._empty = backdrop(camera)  # (480, 640, 3)
        light = camera.exposure * np.array(camera.tint)
        things = [Cutout(thing, light) for thing in script.obstacles]
        self._obstacles = sorted(things, key=lambda thing: thing.depth)
        rng = np.random.default_rng([script.seed, 2])
        self._sensor = Sensor(camera, conditions(script.difficulty, script.seed), rng)
        self._bystanders = _Bystanders(camera, rng)

    def draw(self, index: int) -> UInt8Array:
        """Frame number ``index``, uint8 (240, 320, 3)."""
        time_s = index / FPS
        canvas = self._empty.copy()
        self._bystanders.draw(canvas, time_s)
        camera = self._script.camera
        seen = [(actor, *actor.joints_at(time_s, camera)) for actor in self._script.actors]
        depth = -1.0
        for actor, joints, pixels, place in sorted(seen, key=lambda row: row[3][1]):
            self._paste_obstacles(canvas, depth, place[1])
            depth = place[1]
            height = actor.size * camera.person_px(place[1])
            _shadow(canvas, place[0], camera.floor_y_px(place[1]), pixels, height)
            _person(canvas, actor, joints, pixels, height, camera)
        self._paste_obstacles(canvas, depth, np.inf)
        return self._sensor.sense(canvas, time_s)

    def _paste_obstacles(self, canvas: UInt8Array, beyond: float, upto: float) -> None:
        """Draw what stands between two depths into ``canvas``, uint8 (480, 640, 3)."""
        for thing in self._obstacles:
            if beyond < thing.depth <= upto:
                thing.paste(canvas)


class _Bystanders:
    """What moves though nobody acts: leaves in the wind, and now and then a car far away."""

    def __init__(self, camera: Camera, rng: np.random.Generator) -> None:
        place = np.random.default_rng([camera.seed, 3])
        self._base_y = int(SCALE * (camera.far_y_px - 26))
        n_plants = int(place.integers(1, 4))
        self._plants = [
            (int(place.uniform(0, SCALE * WIDTH_PX)), place.uniform(0, 6, 9))
            for _ in range(n_plants)
        ]
        self._wind_hz = float(rng.uniform(0.3, 0.9))
        self._car_s = float(rng.uniform(2, 40)) if camera.is_outdoors else None
        red, green, blue = rng.integers(40, 220, 3).tolist()
        self._paint = (red, green, blue)
        self._car_y = self._base_y - 18

    def draw(self, canvas: UInt8Array, time_s: float) -> None:
        """Draw them into ``canvas``, uint8 (480, 640, 3)."""
        for x, phases in self._plants:
            for blade, phase in enumerate(phases.tolist()):
                sway = 5 * np.sin(2 * np.pi * self._wind_hz * time_s + phase)
                tip = (
                    int(x + 7 * (blade - 4) + sway),
                    int(self._base_y - 60 + 5 * abs(blade - 4)),
                )
                cv2.line(canvas, (x, self._base_y), tip, (35, 95 + 8 * blade, 40), 4, cv2.LINE_AA)
        if self._car_s is not None and 0 <= time_s - self._car_s < _CAR_S:
            x = int((time_s - self._car_s) / _CAR_S * (SCALE * WIDTH_PX + 200)) - 160
            y = self._car_y
            cv2.rectangle(canvas, (x, y - 26), (x + 130, y), self._paint, -1)
            cv2.rectangle(canvas, (x + 25, y - 46), (x + 100, y - 24), self._paint, -1)
            cv2.rectangle(canvas, (x + 32, y - 42), (x + 93, y - 28), (60, 70, 80), -1)
            for wheel in (x + 28, x + 100):
                cv2.circle(canvas, (wheel, y), 11, (20, 20, 20), -1, cv2.LINE_AA)


def _shadow(
    canvas: UInt8Array, x_px: float, floor_y_px: float, pixels: Points, height: float
) -> None:
    """Darken ``canvas`` (480, 640, 3) under a person whose joints are at ``pixels`` (17, 2)."""
    left, right = float(pixels[:, 0].min()), float(pixels[:, 0].max())
    wide = int(SCALE * max(0.16 * height, 0.45 * (right - left)))
    flat = int(SCALE * 0.05 * height)
    middle = (int(SCALE * (0.5 * x_px + 0.25 * (left + right))), int(SCALE * floor_y_px))
    x0, y0 = max(middle[0] - wide, 0), max(middle[1] - flat, 0)
    patch = canvas[y0 : middle[1] + flat, x0 : middle[0] + wide]
    if patch.size == 0:
        return
    mask = np.zeros(patch.shape[:2], np.uint8)
    cv2.ellipse(
        mask, (middle[0] - x0, middle[1] - y0), (wide, flat), 0, 0, 360, 255, -1, cv2.LINE_AA
    )
    darker = cv2.convertScaleAbs(patch, alpha=0.62)
    np.copyto(patch, darker, where=mask[..., None] > _HALF)


def _person(
    canvas: UInt8Array, actor: Actor, joints: Points, pixels: Points, height: float, camera: Camera
) -> None:
    """Draw a person into ``canvas`` from joints (17, 3) and pixels (17, 2), far limbs first."""
    unit = SCALE * height
    fixed = np.rint(pixels * SCALE * (1 << _SUBPIXEL_BITS)).astype(np.int64)
    nearness: npt.NDArray[np.float64] = joints[:, 2] + 0.15 * joints[:, 1] * np.sin(camera.tilt)
    light = camera.exposure * np.array(camera.tint)
    order = sorted(LIMBS, key=lambda limb: float(nearness[limb.start] + nearness[limb.end]))
    middle = float(nearness.mean())
    for limb in order:
        depth = float(nearness[limb.start] + nearness[limb.end]) / 2 - middle
        colour = np.array(actor.colours[limb.colour]) * light * min(max(1 + 0.9 * depth, 0.7), 1.1)
        cv2.line(
            canvas,
            tuple(fixed[limb.start].tolist()),
            tuple(fixed[limb.end].tolist()),
            tuple(np.clip(colour, 0, 255).tolist()),
            max(1, int(limb.thickness * unit)),
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )
    _head(canvas, actor, fixed[HEAD].tolist(), unit, light)


def _head(
    canvas: UInt8Array,
    actor: Actor,
    at: list[int],
    unit: float,
    light: npt.NDArray[np.float64],
) -> None:
    """Draw hair and face into ``canvas``; ``light`` (3,) holds factors on red, green and blue."""
    radius = int(HEAD_RADIUS * unit * (1 << _SUBPIXEL_BITS))
    hair = tuple(np.clip(np.array(actor.colours["hair"]) * light, 0, 255).tolist())
    skin = tuple(np.clip(np.array(actor.colours["skin"]) * light, 0, 255).tolist())
    cv2.circle(canvas, (at[0], at[1] - radius // 4), radius, hair, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    face = (at[0], at[1] + radius // 6)
    cv2.circle(canvas, face, int(0.82 * radius), skin, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
