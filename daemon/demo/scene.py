"""Draws the scene that the demo watches, so that what happens in it is known exactly."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from daemon.errors import ConfigError
from engine.judging.truth import TruthSpan
from engine.types import Span, UInt8Array
from engine.video.encoding import encode_video

if TYPE_CHECKING:
    from engine.scenes.script import Script

_MAX_FRESH_SEED = 10**6


@dataclass(frozen=True, slots=True)
class Clip:
    """A video to be streamed.

    Attributes:
        path: The video file.
        title: A title for people.
        camera: Name of the camera that the footage is of.
        truth: What happens in it, sorted by start; None if it is not known.
    """

    path: Path
    title: str
    camera: str
    truth: tuple[TruthSpan[str], ...] | None = None


def fresh_seed() -> int:
    """A random seed."""
    return secrets.randbelow(_MAX_FRESH_SEED)


def render_scene(
    path: Path, seed: int, camera: int | None, seconds: float, console: Console
) -> Clip:
    """Draw a scene that no data set holds, while a progress bar is shown.

    Args:
        path: The file to write.
        seed: Decides what happens in the scene and how it looks.
        camera: Number of the camera that sees it; None: the seed decides.
        seconds: Length of the scene.
        console: Shows the progress bar.

    Raises:
        ConfigError: OpenCV is not installed.
        OSError: The file cannot be written.
    """
    try:
        from engine.scenes.camera import FPS  # noqa: PLC0415 - OpenCV is an extra
        from engine.scenes.dataset import demo_script  # noqa: PLC0415
        from engine.scenes.render import pictures  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise ConfigError(
            "drawing a scene needs OpenCV, which is not installed: pip install 's2netd[scenes]', "
            "or give a clip of your own: s2netd demo my.mp4"
        ) from error
    script = demo_script(seed, camera, seconds)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    is_plain = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=is_plain) as progress:
        task = progress.add_task("drawing the scene", total=round(script.duration_s * FPS))

        def watched() -> Iterator[UInt8Array]:
            """The scene's pictures, each uint8 (H, W, 3); the bar advances with each."""
            for picture in pictures(script):
                yield picture
                progress.advance(task)

        encode_video(watched(), path, fps=FPS, key_frame_every=FPS)
    title = f"scene {seed} on {script.camera.name}"
    return Clip(path, title, script.camera.name, _truth_of(script))


def _truth_of(script: "Script") -> tuple[TruthSpan[str], ...]:
    return tuple(
        TruthSpan(row.class_name, Span(round(row.start_s * 1e6), round(row.end_s * 1e6)))
        for row in script.truth
    )
