"""Commands that make a backbone cheaper: convert, separate, and what export shares with them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from engine.errors import DataError
from training.commands.screen import counting, err, note

if TYPE_CHECKING:
    from engine.bundle.model_bundle import ModelBundle
    from training.precision.calibration_clips import Clips

Precision = Annotated[
    str,
    typer.Option(help="Precision of the backbone: f32, f16, bf16 or int8.", show_default=True),
]
Calibrate = Annotated[
    list[Path] | None,
    typer.Option(
        help="Video files, or folders of them, of your cameras' footage; int8 needs them, f16 and "
        "bf16 are compared on them; repeatable.",
        show_default=False,
    ),
]
Snippets = Annotated[
    int,
    typer.Option(
        "--snippets", min=8, help="Number of snippets to take of --calibrate; more take longer."
    ),
]

N_SNIPPETS = 64
N_SNIPPETS_TO_FIT = 160
WORK = 0.33
FEW = 8  # a likeness that rests on fewer snippets says little


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(convert)
    app.command()(separate)


def convert(
    bundle: Annotated[str, typer.Argument(help="A bundle in f32.")],
    out: Annotated[Path, typer.Option(help="The new bundle's folder.")],
    precision: Precision = "int8",
    calibrate: Calibrate = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new bundle; otherwise that of --out's folder.")
    ] = None,
    snippets: Snippets = N_SNIPPETS,
) -> None:
    """Write a bundle again with its backbone in f16, bf16 or int8; nothing is trained.

    Prints the new size and, with --calibrate, how close the features are to those of f32.

    s2net convert scenes --precision int8 --calibrate my_clips --out bundles/scenes-int8
    """
    from engine.bundle.model_bundle import ModelBundle  # noqa: PLC0415 - after the options
    from training.precision.convert import convert as convert_bundle  # noqa: PLC0415
    from training.precision.convert import precision_of  # noqa: PLC0415

    wanted = precision_of(precision)
    original = _original(bundle, out)
    clips = footage(wanted, calibrate, original, snippets)
    with stages() as show:
        written = convert_bundle(
            original, wanted, out, name=name or out.name, clips=clips, on_progress=show
        )
    tell(original, ModelBundle.load(written), clips)


def separate(
    bundle: Annotated[str, typer.Argument(help="A bundle in f32.")],
    out: Annotated[Path, typer.Option(help="The new bundle's folder.")],
    calibrate: Annotated[
        list[Path],
        typer.Option(
            help="Video files, or folders of them, of your cameras' footage; repeatable.",
            show_default=False,
        ),
    ],
    work: Annotated[
        float,
        typer.Option(
            help="Share of the multiply-adds, between 0 and 1: less is faster and coarser."
        ),
    ] = WORK,
    name: Annotated[
        str | None, typer.Option(help="Name of the new bundle; otherwise that of --out's folder.")
    ] = None,
    snippets: Snippets = N_SNIPPETS_TO_FIT,
) -> None:
    """Write a bundle again with a backbone that does a third of the work; nothing is trained.

    Its convolutions over time and space become two each, fitted to your footage. Then extract
    features with it and train on them: they are not those of the original.

    s2net separate kinetics400-160 --calibrate my_clips --out bundles/light
    """
    from engine.bundle.model_bundle import ModelBundle  # noqa: PLC0415 - after the options
    from training.precision.convert import likeness  # noqa: PLC0415
    from training.precision.convert import separate as separate_bundle  # noqa: PLC0415

    if not 0 < work < 1:
        raise DataError(f"--work is {work:g}, wanted a share between 0 and 1")
    original = _original(bundle, out)
    clips = _clips(calibrate, original, snippets)
    with stages() as show:
        found = separate_bundle(
            original, work, out, name=name or out.name, clips=clips, on_progress=show
        )
    separated = ModelBundle.load(out)
    typer.echo(
        f"{separated.model_id} in {out}: {found.n_split} convolutions in two, "
        f"{found.work:.0%} of the multiply-adds"
    )
    with stages() as show:
        alike = likeness(original.backbone_path, separated.backbone_path, clips.check, show)
    if alike is not None:
        typer.echo(str(alike))
    typer.echo(f"its features are its own: s2net extract VIDEOS --bundle {out}, and train on them")


def footage(
    precision: str, calibrate: Sequence[Path] | None, base: "ModelBundle", n_snippets: int
) -> "Clips | None":
    """Read what int8 is calibrated on and every precision checked on; None if no clips are named.

    Raises:
        DataError: int8 comes without clips, f32 with them, or clips cannot be used.
    """
    if precision == "f32" and calibrate:
        raise DataError("--calibrate is for --precision int8 (or f16, bf16: to compare): add it")
    if precision == "int8" and not calibrate:
        raise DataError(
            "int8 is calibrated on real footage: name some with --calibrate CLIPS (a minute of "
            "each camera is plenty)"
        )
    return _clips(calibrate, base, n_snippets) if calibrate else None


def _original(bundle: str, out: Path) -> "ModelBundle":
    """Load the bundle that is written again, and make room for it elsewhere.

    Raises:
        BundleError: There is no such bundle, or ``out`` holds something else.
        DataError: It would be written onto itself.
    """
    from engine.bundle.model_bundle import ModelBundle, resolve_bundle  # noqa: PLC0415 - after the options
    from engine.bundle.room import make_room  # noqa: PLC0415

    original = ModelBundle.load(resolve_bundle(bundle))
    if out.resolve() == original.path.resolve():
        raise DataError(f"--out {out} is the bundle itself: choose another folder")
    make_room(out)
    return original


def _clips(calibrate: Sequence[Path], base: "ModelBundle", n_snippets: int) -> "Clips":
    """Read clips, and say which were left out.

    Raises:
        DataError: There are none that can be used.
    """
    from training.precision.calibration_clips import read_clips  # noqa: PLC0415 - decodes video

    with counting("reading clips") as done:
        clips = read_clips(calibrate, base.spec, n_snippets, done)
    for why in clips.failed:
        note(f"left out: {why}")
    return clips


def tell(original: "ModelBundle", converted: "ModelBundle", clips: "Clips | None") -> None:
    """Print what was written, and how close its features are to the original's."""
    from training.precision.convert import GOAL, likeness  # noqa: PLC0415

    before, after = (
        path.stat().st_size / 1e6 for path in (original.backbone_path, converted.backbone_path)
    )
    typer.echo(
        f"{converted.model_id} in {converted.path}: backbone {converted.card.precision}, "
        f"{after:.1f} MB (f32: {before:.1f})"
    )
    with stages() as show:
        found = likeness(
            original.backbone_path,
            converted.backbone_path,
            clips.check if clips is not None else (),
            show,
        )
    if found is None:
        typer.echo(f"is it the same? s2netd engine verify --bundle {converted.path}")
        return
    typer.echo(str(found))
    if found.lowest < GOAL:
        note(f"that is below {GOAL}: calibrate on more footage, of the cameras it will see")
    elif found.n_snippets < FEW:
        note("so few say little: calibrate on more footage, of the cameras it will see")
    typer.echo(f"its events: s2netd engine verify --bundle {converted.path} --video YOUR_VIDEO")


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each stage.

    Yields:
        A function to call with stage, done and total.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=err, disable=not err.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        yield show
