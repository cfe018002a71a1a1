"""A day of a camera, an hour in a few seconds: an empty place to which people come at times."""

from collections.abc import Iterator
from pathlib import Path

import cv2

from daemon.bench.cameras.stages import encode_as_camera
from engine.scenes.camera import FPS, camera
from engine.scenes.planner import Wanted, plan
from engine.scenes.render import pictures
from engine.scenes.script import Script
from engine.types import UInt8Array

# So long that the first ten seconds, in which the motion gate learns the place, are one hour.
HOUR_S = 10.0
DAY_S = 24 * HOUR_S
# People come at these hours, and somebody does this.
BUSY_HOURS = {8: "wave", 12: "pick up", 17: "run"}
_CAMERA = 2  # outdoors: leaves move in the wind, and cars pass by
_SEED = 20


def day_footage(folder: Path, size: tuple[int, int]) -> Path:
    """Draw a day as a camera sends it: H.264, 25 frames a second, a key frame each second.

    Args:
        folder: Where the file is put.
        size: Width and height in pixels, both even.
    """
    path = folder / "day.mp4"
    frames = (cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in _pictures())
    encode_as_camera(frames, path, size, key_frame_every=FPS)  # type: ignore[arg-type]
    return path


def _pictures() -> Iterator[UInt8Array]:
    place = camera(_CAMERA)
    for hour in range(24):
        script = Script(place, HOUR_S, (), (), _SEED)
        if hour in BUSY_HOURS:
            script = plan(place, Wanted((BUSY_HOURS[hour],), HOUR_S), _SEED)
        yield from pictures(script)
