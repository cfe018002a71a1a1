"""Commands that make data: features, rendered scenes, planted features."""

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import DataError
from training.commands.screen import counting, existing, note, processes_here


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(extract)
    app.command("render-scenes")(render_scenes)
    app.command()(plant)


def extract(
    videos: Annotated[
        list[Path],
        typer.Argument(
            help="Video files, or folders of them; with --from-log, a camera and ranges of time."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the feature files.")] = Path("features"),
    bundle: Annotated[
        str, typer.Option(help="Bundle whose backbone and grid are used, by name or folder.")
    ] = "kinetics400-160",
    precision: Annotated[
        str, typer.Option(help="Precision of the backbone in OpenVINO: f32 or bf16.")
    ] = "f32",
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Videos at a time, which share the CPUs; otherwise one for each CPU."
        ),
    ] = None,
    from_log: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Take features that a daemon has logged from what s2netd features export wrote.",
        ),
    ] = None,
    max_lost: Annotated[
        float,
        typer.Option(
            "--max-lost-percent",
            min=0,
            max=100,
            help="More of a video left out, as damaged, is a failure: exit code 3.",
        ),
    ] = 5,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            help="With --from-log: a class that happens somewhere in each range; repeat it for "
            "several, or give '' if nothing does. Without it, ranges are not trained on."
        ),
    ] = None,
) -> None:
    """Write a feature file for each video; finished ones are kept, so it can be interrupted.

    A tags.csv or annotations.json beside the videos is copied to the features for later commands.
    A video that cannot be read is left out, and the exit code is then 1. What had to be left out
    of a video is named.

    With --from-log no video is read. Ranges are of the local clock, with a date before the T where
    the export has several days; each becomes a clip with its row in tags.csv.

    s2net extract my_clips --out features

    s2net extract --from-log log gate-3 14:00..14:05 14:20:30..14:21 --tag fall --bundle scenes
    """
    if from_log is not None:
        _extract_from_log(from_log, [str(given) for given in videos], bundle, out, tag)
        return
    if tag is not None:
        raise DataError("--tag goes with --from-log; videos have their tags in a tags.csv")
    from engine.backends.names import ARITHMETICS, check_name  # noqa: PLC0415 - by this command only
    from engine.bundle.model_bundle import resolve_bundle  # noqa: PLC0415
    from engine.video.losses import Losses, check_losses  # noqa: PLC0415
    from training.extract import extract_in_parallel  # noqa: PLC0415

    check_name("--precision", precision, ARITHMETICS)
    model = resolve_bundle(bundle)
    paths = list(_videos(videos))
    with counting("extracting features", len(paths)) as done:
        finished: list[Path] = []
        losses: dict[str, Losses] = {}

        def on_done(path: Path) -> None:
            finished.append(path)
            done(len(finished))

        failed = extract_in_parallel(
            paths,
            model,
            out,
            processes=processes or min(processes_here(), len(paths)),
            precision=precision,
            on_done=on_done,
            on_losses=lambda path, lost: losses.update({str(path): lost}),
        )
    _copy_labels(videos, out)
    reasons = list(failed.values())
    if failed and len(failed) == len(paths):
        more = f" (and {len(paths) - 1} more videos)" if len(paths) > 1 else ""
        raise DataError(f"{reasons[0]}{more}")
    for why in [*reasons, *(f"{name}: {lost.told}" for name, lost in losses.items() if lost.told)]:
        note(f"left out: {why}")
    typer.echo(f"{len(paths) - len(failed)} feature file(s) in {out}")
    if failed:
        raise typer.Exit(1)
    check_losses(losses, max_lost / 100)


def _extract_from_log(
    folder: Path, given: list[str], bundle: str, out: Path, tags: list[str] | None
) -> None:
    from engine.bundle.model_bundle import ModelBundle, resolve_bundle  # noqa: PLC0415 - heavy
    from training.log_clips import extract_from_log, parse_range  # noqa: PLC0415 - only here

    camera, *ranges = given
    if not ranges:
        raise DataError(f"say which ranges of {camera}, such as 14:00..14:05")
    clips = extract_from_log(
        folder,
        camera,
        [parse_range(text) for text in ranges],
        ModelBundle.load(resolve_bundle(bundle)),
        out,
        None if tags is None else [tag for tag in tags if tag],
    )
    for name, seconds in clips:
        note(f"{name}: features of {seconds:.1f} s")
    typer.echo(f"{len(clips)} feature file(s) in {out}")


def _copy_labels(given: Iterable[Path], out: Path) -> None:
    """Copy tags and annotations that lie in a folder of videos, or beside it, to the features."""
    for folder in given:
        for name in ("tags.csv", "annotations.json"):
            found = [place / name for place in (folder, folder.parent) if folder.is_dir()]
            found = [path for path in found if path.is_file()]
            if found and not (out / name).exists():
                shutil.copyfile(found[0], out / name)
                note(f"{found[0]} copied to {out}")


def _videos(given: Iterable[Path]) -> Iterable[Path]:
    from training.precision.calibration_clips import VIDEO_ENDINGS  # noqa: PLC0415 - heavy

    for path in given:
        if not path.is_dir():
            yield path
            continue
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEO_ENDINGS)
        if not found:
            endings = " ".join(sorted(VIDEO_ENDINGS))
            raise DataError(f"{path}: holds no video; wanted files ending in {endings}")
        yield from found


def render_scenes(
    out: Annotated[Path, typer.Option(help="Folder for the data set.")] = Path("scenes"),
    draw: Annotated[
        int,
        typer.Option(
            min=0, help="Number of the draw; another number changes all but the cameras."
        ),
    ] = 0,
    scale: Annotated[
        float,
        typer.Option(
            min=0.01, max=4, help="Number of videos, as a share of the benchmark's number."
        ),
    ] = 1.0,
    quiet_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Draw so many minutes in which nothing happens, and nothing else."
        ),
    ] = None,
    *,
    hard: Annotated[
        bool,
        typer.Option(
            "--hard",
            help="Small people, several acting at once behind pillars, plants and cars, gestures "
            "around them, nights, drifting light, shake and strong compression.",
        ),
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Videos at a time; otherwise one for each CPU.")
    ] = None,
) -> None:
    """Draw surveillance scenes with exact intervals: clips to train on, videos to test on.

    Writes videos, tags.csv and annotations.json.

    s2net render-scenes --out scenes && s2net extract scenes/videos --out features

    s2net render-scenes --out hard --hard

    s2net render-scenes --out quiet --draw 1 --quiet-minutes 60
    """
    try:
        from engine.scenes.dataset import SceneCounts, render_scenes  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise DataError(f"{error}: pip install 's2netd[scenes]'") from error

    from engine.scenes.difficulty import HARD, PLAIN  # noqa: PLC0415 - as above

    whole = SceneCounts()
    kinds = ("tagged", "untagged", "validation", "test", "quiet", "unseen")
    scaled = {kind: max(1, round(scale * getattr(whole, kind))) for kind in kinds}
    if quiet_minutes is not None:
        n_quiet = math.ceil(60 * quiet_minutes / (sum(whole.long_s) / 2))
        scaled = {**dict.fromkeys(kinds, 0), "quiet": n_quiet}
    counts = SceneCounts(**scaled)
    with counting("drawing videos") as done:
        n_videos = render_scenes(
            out, counts, draw, processes or processes_here(), HARD if hard else PLAIN, done
        )
    typer.echo(f"{n_videos} videos, tags.csv and annotations.json in {out}")


def plant(
    out: Annotated[Path, typer.Option(help="Folder for the feature files.")] = Path("planted"),
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="THUMOS14's gt.json or folder of arrays, which says what happens when; otherwise "
            "that is invented."
        ),
    ] = None,
    modality: Annotated[
        str, typer.Option(help="joint (2048 numbers a snippet) or rgb (1024).")
    ] = "joint",
    videos: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many videos of each subset, of all classes in turn."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds write equal files.")] = 0,
) -> None:
    """Make features with known actions in them, as a self-test of one's set-up.

    Writes THUMOS14's published layout, train and test, with a gt.json.
    If training on it finds nothing, something is set up wrongly.

    s2net plant --out planted --videos 40

    s2net train --config configs/training/s2net-thumos14.yaml --features planted --out runs/planted
    """
    from training.benchmarks.planted import plant as plant_features  # noqa: PLC0415
    from training.benchmarks.planted import synthetic_timelines  # noqa: PLC0415
    from training.loaders.thumos import read_thumos  # noqa: PLC0415 - only this command's

    if modality not in ("joint", "rgb"):
        raise DataError(f"--modality is {modality!r}, wanted joint or rgb")
    timelines = (
        read_thumos(existing(annotations, "--annotations"), note)
        if annotations
        else synthetic_timelines(seed)
    )
    with counting("planting") as done:
        truth = plant_features(
            timelines,
            out,
            seed=seed,
            modality="rgb" if modality == "rgb" else "joint",
            n_videos=videos,
            on_progress=done,
        )
    typer.echo(f"features and {truth.name} in {out}")
