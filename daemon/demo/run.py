"""`s2netd demo`: a fresh scene, or your own clip, streamed through the real daemon.

The daemon is not changed for the demo. Only the scene is special: it is drawn on the spot, so what
happens in it is known, and the events can be compared with that.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from daemon.config import ModelConfig, parse_model
from daemon.demo.live import Narrator, stream
from daemon.demo.report import SceneResult, event_table, scene_table, sentence, summary
from daemon.demo.scene import Clip, fresh_seed, render_scene
from daemon.demo.score import Comparison, compare, total
from daemon.errors import ConfigError
from daemon.localize import ProgressBar
from daemon.localized_video import (
    LocalizedVideo,
    localize_video,
    nearest_to_an_event,
    timeline_of,
)
from daemon.models.choosing import Telling, open_model, settled
from daemon.models.reading import check_model, read_model
from daemon.models.slot import OpenModel
from daemon.outputs import write_whole, writing_to
from daemon.timeline.nearest import what_it_lacked
from daemon.timeline.page import Mistakes
from engine.judging.histories import histories
from engine.types import ActionEvent
from engine.video.frames import probe_video

OWN_CAMERA = "demo"
OWN_BUNDLE = "kinetics400"
SCENE_BUNDLE = "scenes"
PACES = ("real", "fast")


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line says; see `s2netd demo --help`."""

    video: Path | None
    bundle: str | None
    out: Path
    labels: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = ()
    camera: int | None = None
    seconds: float = 50.0
    pace: str = PACES[0]
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.pace not in PACES:
            raise ConfigError(f"--pace is {self.pace!r}, wanted {' or '.join(PACES)}")
        if self.video is not None and (self.seeds or self.camera is not None):
            raise ConfigError("--seed and --camera are for a drawn scene: leave them or VIDEO out")

    @property
    def model(self) -> ModelConfig:
        """The model that watches: the bundle that is named, else one that suits the video."""
        usual = SCENE_BUNDLE if self.video is None else OWN_BUNDLE
        plain = {"bundle": self.bundle or usual, "labels": self.labels}
        return parse_model({**plain, "precision": self.precision})

    @property
    def is_realtime(self) -> bool:
        """True if footage comes at its own pace."""
        return self.pace == PACES[0]


def run_demo(options: DemoOptions, console: Console) -> None:
    """Stream the scenes or the clip through the daemon, and write timelines and figures.

    Raises:
        S2netdError: Anything that the user can put right, in one line.
    """
    check_model(options.model)
    if options.video is not None:
        probe_video(options.video)
    options = _settled(options, console)
    if options.video is not None:
        clip = Clip(options.video, options.video.name, OWN_CAMERA)
        _demo_of_own(clip, options, console)
    else:
        _demo_of_scenes(options, console)


def _settled(options: DemoOptions, console: Console) -> DemoOptions:
    """Choose the precision before anything is shown, for all that the demo opens; say which."""
    name = options.model.bundle
    with console.status(f"choosing a precision for {name}") as status:
        telling = Telling(
            note=lambda words: _say(console, words),
            step=lambda words: status.update(f"choosing a precision for {name}: {words}"),
        )
        read = settled(read_model(options.model), telling)
    _say(console, f"precision {read.choice}" if read.choice else "")
    return replace(options, precision=read.config.precision)


def _demo_of_own(clip: Clip, options: DemoOptions, console: Console) -> None:
    out = options.out
    _clear(out)
    _announce(clip, options, console)
    narrator = Narrator(console, None)
    revisions = stream(clip, options.model, out, console, narrator, realtime=options.is_realtime)
    console.print(f"{len(revisions)} records in {out / 'events.jsonl'}", markup=False)
    with closing(open_model(options.model)) as model:
        video = _draw(clip, revisions, None, model, out, console)
        if not video.result.final:
            console.print(_silence(video, model), soft_wrap=True)
    n_live, n_straight_line = _n_closed(revisions), len(video.result.final)
    page = out / "timeline.html"
    content = {"live_events": n_live, "offline_events": n_straight_line, "timeline": str(page)}
    _write_summary(out, content)
    _say(console, f"{_agreement(n_live, n_straight_line)} Timeline: {page}")


def _demo_of_scenes(options: DemoOptions, console: Console) -> None:
    seeds = options.seeds or (fresh_seed(),)
    _clear(options.out)  # so that nothing of an earlier demo is left if this one is interrupted
    results = []
    with ExitStack() as stack:
        model: OpenModel | None = None
        for seed in seeds:
            out = options.out if len(seeds) == 1 else options.out / f"seed-{seed}"
            _clear(out)
            clip = _scene(seed, options, out, console)
            revisions = _watch(clip, options, out, console, is_only=len(seeds) == 1)
            # Not before: while the daemon works, nothing else should load the machine.
            model = model or stack.enter_context(closing(open_model(options.model)))
            results.append(_judge(seed, clip, revisions, model, out, console))
    whole = total([result.comparison for result in results])
    if len(results) > 1:
        console.print(scene_table(results, whole))
        _say(console, f"in all: {sentence(whole)}")
    _write_summary(options.out, summary(check_model(options.model), results, whole))
    _say(console, f"All figures: {options.out / 'summary.json'}")


def _scene(seed: int, options: DemoOptions, out: Path, console: Console) -> Clip:
    with writing_to(out):
        clip = render_scene(out / "scene.mp4", seed, options.camera, options.seconds, console)
    if options.labels is None:
        return clip
    truth = tuple(one for one in clip.truth or () if one.class_id in options.labels)
    return Clip(clip.path, clip.title, clip.camera, truth)


def _watch(
    clip: Clip, options: DemoOptions, out: Path, console: Console, *, is_only: bool
) -> list[ActionEvent]:
    """Stream a clip through the daemon; if it is the only one, tell it line by line."""
    _announce(clip, options, console)
    told = console if is_only else Console(quiet=True)
    narrator = Narrator(told, clip.truth)
    return stream(clip, options.model, out, console, narrator, realtime=options.is_realtime)


def _announce(clip: Clip, options: DemoOptions, console: Console) -> None:
    pace = "at its own pace" if options.is_realtime else "as fast as it goes"
    console.print(
        f"[bold]{escape(clip.title)}[/] as camera [bold]{escape(clip.camera)}[/], "
        f"{pace}, in 1 s chunks",
        highlight=False,
        soft_wrap=True,
    )


def _judge(
    seed: int,
    clip: Clip,
    revisions: Sequence[ActionEvent],
    model: OpenModel,
    out: Path,
    console: Console,
) -> SceneResult:
    """Compare the events with the truth, draw both, and say how it went."""
    comparison = compare(clip.truth or (), revisions)
    video = _draw(clip, revisions, comparison, model, out, console)
    console.print(event_table(comparison))
    _say(console, sentence(comparison))
    n_straight_line, page = len(video.result.final), out / "timeline.html"
    _say(console, f"{_agreement(_n_closed(revisions), n_straight_line)} Timeline: {page}")
    return SceneResult(
        seed=seed,
        camera=clip.camera,
        duration_us=video.duration_us,
        comparison=comparison,
        n_straight_line=n_straight_line,
        video=clip.path,
        timeline=page,
    )


def _draw(
    clip: Clip,
    revisions: Sequence[ActionEvent],
    comparison: Comparison | None,
    model: OpenModel,
    out: Path,
    console: Console,
) -> LocalizedVideo:
    """Draw the timeline of the live revisions; the curves are of a straight line over the clip."""
    mistakes = None
    if comparison is not None:
        false = frozenset(event.last.event_id for event in comparison.false)
        mistakes = Mistakes(false, frozenset(comparison.missed))
    columns = (TextColumn("drawing the timeline"), BarColumn(), TaskProgressColumn())
    is_plain = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=is_plain) as progress:
        duration_us = probe_video(clip.path).duration_us or 0
        bar = ProgressBar(progress, [duration_us])
        video = localize_video(clip.path, clip.camera, model, bar.at)
    page = timeline_of(
        video,
        model,
        title=clip.title,
        events=revisions,
        truth=clip.truth or (),
        mistakes=mistakes,
        notes=() if comparison is None else (sentence(comparison),),
    )
    write_whole(out / "timeline.html", page.encode())
    return video


def _agreement(n_live: int, n_straight_line: int) -> str:
    return f"live: {n_live} events; the same clip in one straight line: {n_straight_line}."


def _say(console: Console, text: str) -> None:
    """Print a line of text without markup, for it may hold paths and numbers."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clear(out: Path) -> None:
    """Delete what an earlier demo wrote into the folder, and nothing else."""
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(out / "chunks", ignore_errors=True)
        for pattern in (
            *("events.jsonl", "state.sqlite*", "daemon.log"),
            *("scene.mp4", "timeline.html", "summary.json"),
        ):
            for leftover in out.glob(pattern):
                leftover.unlink()


def _write_summary(out: Path, content: dict[str, Any]) -> None:
    write_whole(out / "summary.json", (json.dumps(content, indent=2) + "\n").encode())


def _n_closed(revisions: Sequence[ActionEvent]) -> int:
    """How many events are final and were not taken back."""
    return sum(event.state == "closed" for event in histories(revisions))


def _silence(video: LocalizedVideo, model: OpenModel) -> str:
    near = nearest_to_an_event(video, model)
    if near is None:
        return "No events: the clip is shorter than one snippet."
    return f"No events. {what_it_lacked(near, f'“{near.class_name}”')}"
