"""A data set of scenes: tagged clips, validation, test, action-free and unseen-camera videos.

Layout: ``videos/NAME.mp4``, ``tags.csv`` (what an operator would write: training clips and the
actions in them, no times), ``annotations.json`` (ActivityNet's form with a camera: exact times).
"""

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from engine.process_pool import process_pool
from engine.scenes.camera import FPS, N_CAMERAS, camera
from engine.scenes.difficulty import PLAIN, Difficulty
from engine.scenes.motions import ACTIONS
from engine.scenes.planner import Wanted, plan
from engine.scenes.render import pictures
from engine.scenes.script import Script
from engine.scenes.sensing import conditions
from engine.video.encoding import encode_video

ANNOTATIONS = "annotations.json"
TAGS = "tags.csv"
_KEY_FRAME_EVERY = 25
_ACTIONS_PER_S = 12 / 50  # as many as fit into the long videos
_FIRST_DEMO_SEED = 10**9  # beyond the seeds of every draw


@dataclass(frozen=True, slots=True)
class SceneCounts:
    """How many videos of each kind.

    Attributes:
        tagged: Training clips with one or two actions.
        untagged: Training clips without any; tagged as such.
        validation, test: Long videos of the cameras of training.
        quiet: Long videos without actions, for false alarms.
        unseen: Long videos of the camera that is kept out of training.
        clip_s: Shortest and longest clip.
        long_s: Shortest and longest other video.
    """

    tagged: int = 280
    untagged: int = 60
    validation: int = 13
    test: int = 22
    quiet: int = 5
    unseen: int = 8
    clip_s: tuple[float, float] = (5.0, 7.0)
    long_s: tuple[float, float] = (44.0, 54.0)


@dataclass(frozen=True, slots=True)
class SceneVideo:
    """One video to be drawn."""

    name: str
    subset: str
    script: Script


def scene_videos(
    counts: SceneCounts, draw: int, difficulty: Difficulty = PLAIN
) -> Iterator[SceneVideo]:
    """All videos of one draw; the same arguments give the same videos.

    Args:
        counts: How many of each kind.
        draw: Number of the draw; everything but the cameras differs between draws.
        difficulty: How hard they are to see; cameras, subsets and seeds are the same.
    """
    kinds = (
        ("training", counts.tagged),
        ("background", counts.untagged),
        ("validation", counts.validation),
        ("testing", counts.test),
        ("quiet", counts.quiet),
        ("unseen", counts.unseen),
    )
    for kind_number, (kind, n_videos) in enumerate(kinds):
        deck = _Deck(np.random.default_rng([draw, kind_number]))
        for number in range(n_videos):
            where = N_CAMERAS if kind == "unseen" else 1 + number % (N_CAMERAS - 1)
            seed = (draw * len(kinds) + kind_number) * 100_000 + number
            script = _script(kind, where, deck, counts, seed, difficulty)
            subset = "training" if kind == "background" else kind
            yield SceneVideo(f"{difficulty.prefix}{draw}_{kind}_{number:03d}", subset, script)


def demo_script(seed: int, camera_number: int | None, duration_s: float) -> Script:
    """A scene that is in no draw, like those of validation and test.

    All actions happen about equally often.

    Args:
        seed: The same seed gives the same scene, and none that any draw has.
        camera_number: One of the cameras of training; None: the seed chooses.
        duration_s: Length.
    """
    own_seed = _FIRST_DEMO_SEED + seed
    where = camera_number or 1 + seed % (N_CAMERAS - 1)
    deck = _Deck(np.random.default_rng([own_seed, 3]))
    actions = deck.deal(math.ceil(_ACTIONS_PER_S * duration_s))
    return plan(camera(where), Wanted(actions, duration_s), own_seed)


class _Deck:
    """Deals every action equally often, in random order."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._left: list[str] = []

    def deal(self, n_actions: int) -> tuple[str, ...]:
        dealt = []
        for _ in range(n_actions):
            if not self._left:
                self._left = [str(class_name) for class_name in self.rng.permutation(ACTIONS)]
            dealt.append(self._left.pop())
        return tuple(dealt)


def _script(
    kind: str, where: int, deck: _Deck, counts: SceneCounts, seed: int, difficulty: Difficulty
) -> Script:
    rng = deck.rng
    place = camera(where, difficulty)
    is_clip = kind in ("training", "background")
    duration_s = round(float(rng.uniform(*(counts.clip_s if is_clip else counts.long_s))), 2)
    if kind in ("background", "quiet"):
        return plan(place, Wanted((), duration_s), seed, difficulty)
    if not is_clip:
        wanted = Wanted(deck.deal(12), duration_s, together=difficulty.together)
        return plan(place, wanted, seed, difficulty)
    actions = deck.deal(2 if rng.uniform() < difficulty.clip_pairs else 1)
    together = difficulty.clip_together
    brisk = Wanted(actions, duration_s, gap_s=(0.3, 1.0), lead_s=(0.2, 1.2), together=together)
    for attempt in range(100):
        script = plan(place, brisk, seed + 50_000 + 500 * attempt, difficulty)
        if script.truth:
            return _cut_before_rising(script, rng)
    raise ValueError(f"no plan holds {actions} within {duration_s} s")


def _cut_before_rising(script: Script, rng: np.random.Generator) -> Script:
    """Of clips that end with a fall, cut half before the getting up, which is no part of it."""
    last = script.truth[-1]
    if last.class_name != "fall" or rng.uniform() < 0.5:  # noqa: PLR2004 - half
        return script
    end_s = max(last.end_s + 0.1, *(labelled.end_s for labelled in script.truth))
    return replace(script, duration_s=round(end_s, 2))


def render_video(video: SceneVideo, path: Path) -> None:
    """Draw a video and encode it, H.264 with a key frame each second, whole or not at all."""
    cv2.setNumThreads(1)
    unfinished = path.with_suffix(".part")
    encode_video(
        pictures(video.script),
        unfinished,
        fps=FPS,
        key_frame_every=_KEY_FRAME_EVERY,
        bits_per_second=conditions(video.script.difficulty, video.script.seed).bits_per_second,
    )
    unfinished.replace(path)


def render_scenes(
    out: Path,
    counts: SceneCounts,
    draw: int,
    processes: int,
    difficulty: Difficulty = PLAIN,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write a data set; videos that are there already are kept.

    Args:
        out: Folder; made if need be.
        counts: How many videos.
        draw: Number of the draw.
        processes: How many draw at once.
        difficulty: How hard they are to see.
        on_progress: Told how many videos are done, of how many.

    Returns:
        Number of videos.

    Raises:
        OSError: It cannot be written.
    """
    (out / "videos").mkdir(parents=True, exist_ok=True)
    videos = list(scene_videos(counts, draw, difficulty))
    write_annotations(videos, out)
    paths = [out / "videos" / f"{video.name}.mp4" for video in videos]
    todo = [(v, p) for v, p in zip(videos, paths, strict=True) if not p.exists()]
    on_progress(len(videos) - len(todo), len(videos))
    with process_pool(processes) as pool:
        jobs = [pool.submit(render_video, video, path) for video, path in todo]
        for done, job in enumerate(jobs, start=len(videos) - len(todo) + 1):
            job.result()
            on_progress(done, len(videos))
    return len(videos)


def write_annotations(videos: list[SceneVideo], out: Path) -> None:
    """``annotations.json`` with every interval, ``tags.csv`` with the training clips' tags."""
    database = {
        video.name: {
            "subset": video.subset,
            "duration": round(round(video.script.duration_s * FPS) / FPS, 2),
            "camera": video.script.camera.name,
            "annotations": [
                {"segment": [round(row.start_s, 3), round(row.end_s, 3)], "label": row.class_name}
                for row in video.script.truth
            ],
        }
        for video in videos
    }
    content = {"version": 1, "classes": list(ACTIONS), "database": database}
    (out / ANNOTATIONS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with (out / TAGS).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video", "tags", "camera"])
        for video in videos:
            if video.subset == "training":
                tags = sorted({row.class_name for row in video.script.truth})
                table.writerow([video.name, ";".join(tags), video.script.camera.name])
