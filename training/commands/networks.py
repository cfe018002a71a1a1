"""Commands that make networks: train, ablate, export, parity."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from engine.errors import DataError
from training.commands.conversion import (
    N_SNIPPETS,
    Calibrate,
    Precision,
    Snippets,
    footage,
    stages,
    tell,
)
from training.commands.online import LookAhead, Teachers, check_asked, teacher_of
from training.commands.screen import (
    DEFAULT_CONFIG,
    Annotations,
    Changes,
    Config,
    Features,
    Threads,
    config_file,
    err,
    existing,
    needs_torch,
    note,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.learning.progress import Progress
    from training.records import FeatureSet


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(ablate)
    app.command()(export)
    app.command()(parity)


@contextmanager
def _training_bar() -> "Iterator[Callable[[str, Progress], None]]":
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=err, disable=not err.is_terminal) as bar:
        tasks = {}

        def show(prefix: str, progress: "Progress") -> None:
            key = f"{prefix}{progress.phase}"
            if key not in tasks:
                tasks[key] = bar.add_task(key, total=progress.iterations)
            loss = progress.losses.get("total")
            text = None if loss is None else f"{key}  loss {loss:.3f}"
            bar.update(tasks[key], completed=progress.step, description=text)

        yield show


def train(
    features: Features,
    tags: Annotated[
        Path | None,
        typer.Option(
            "--tags",
            "--annotations",
            help="What happens in each video: tags.csv, a YAML manifest, or published "
            "annotations; otherwise tags.csv or gt.json among the features.",
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    out: Annotated[Path, typer.Option(help="Folder for the run.")] = Path("runs/s2net"),
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of weights and order; otherwise the configuration's."),
    ] = None,
    changes: Changes = None,
    quiet: Annotated[
        Path | None,
        typer.Option(
            help="Folder of features of footage in which nothing happens: what is found there "
            "after a first round is wrong, and is learned from in a second one."
        ),
    ] = None,
    teacher: Teachers = None,
    look_ahead: LookAhead = None,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda or auto.")] = "auto",
    threads: Threads = 1,
    *,
    online: Annotated[
        bool,
        typer.Option(
            "--online",
            help="Train a student for live cameras, which learns from a --teacher that saw whole "
            "clips to score what has only begun.",
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew and write over what is in --out.")
    ] = False,
    judge: Annotated[
        bool,
        typer.Option(
            help="Of one's own clips: train once more without some cameras, and say how well "
            "their clips are ranked, beside chance and a plain regression."
        ),
    ] = True,
) -> None:
    """Train a network from tags; an interrupted run goes on where it was.

    Writes a run folder with the network, log.csv and log.png; s2net export makes a bundle of it.
    Says what looks wrong with the tags, and how good the network is on cameras it has not seen.

    s2net train --features features --out runs/mine

    s2net train --features features --quiet quiet-features --out runs/fewer-false-alarms

    s2net train --features features --online --teacher runs/mine --look-ahead 2 --out runs/live

    s2net train --config configs/training/s2net-thumos14.yaml --features DIR --out runs/thumos14
    """
    with needs_torch():
        from training.evaluation.judging import judge as judge_training  # noqa: PLC0415 - needs torch
        from training.learning.distillation import student_content  # noqa: PLC0415
        from training.learning.tag_notes import tag_notes  # noqa: PLC0415
        from training.learning.train import DEVICES  # noqa: PLC0415
        from training.learning.train import train as train_network  # noqa: PLC0415
    from engine.backends.names import check_name  # noqa: PLC0415
    from training.config import parse_override, read_training_config  # noqa: PLC0415
    from training.data import features_manifest, training_set  # noqa: PLC0415

    check_name("--device", device, DEVICES, DataError)
    check_asked(online=online, teachers=teacher, look_ahead=look_ahead)
    overrides = dict(map(parse_override, changes or ()))
    if seed is not None:
        overrides["seed"] = seed
    change = partial(student_content, look_ahead=look_ahead) if online else None
    chosen = read_training_config(config_file(config), overrides, change)
    videos = training_set(chosen.data, features, tags, note)
    n_tagged = sum(record.tags is not None for record in videos.records)
    note(f"{n_tagged} tagged videos, {len(videos.class_names)} classes: {config}")
    is_own = chosen.data.kind == "clips"
    for line in tag_notes(videos) if is_own else ():
        note(line)
    if chosen.rounds == 1 and any(record.points for record in videos.records):
        note("segments are grown from clicks in a second round only: --set rounds=2")
    silent = None if quiet is None else _quiet_footage(quiet)
    with _training_bar() as show:
        train_network(
            chosen,
            videos,
            out,
            quiet=silent,
            teacher=teacher_of(teacher) if teacher else None,
            manifest=features_manifest(chosen.data, features),
            device=device,
            threads=threads,
            resume=not fresh,
            on_progress=lambda progress: show("", progress),
            note=note,
        )
        judgement = None
        if judge and is_own and not online:  # its teacher has seen every clip
            try:
                judgement = judge_training(
                    chosen,
                    videos,
                    out,
                    quiet=silent,
                    device=device,
                    threads=threads,
                    resume=not fresh,
                    on_progress=lambda progress: show("judging: ", progress),
                )
            except DataError as error:
                note(f"not judged on what it has not seen: {error}")
    if judgement is not None:
        typer.echo("\n".join(judgement.lines()))
        if (loud := judgement.warning()) is not None:
            err.print(f"WARNING: {loud}", style="bold red", markup=False, soft_wrap=True)
    typer.echo(f"trained: {out} (log.csv, log.png); next: s2net export {out} --out bundles/mine")


def _quiet_footage(folder: Path) -> "FeatureSet":
    from training.loaders.clips import load_quiet  # noqa: PLC0415 - after the options

    silent = load_quiet(existing(folder, "--quiet"))
    hours = sum(record.duration_us for record in silent.records) / 3.6e9
    note(f"{len(silent.records)} quiet videos, {hours:.2f} hours: {folder}")
    return silent


def ablate(
    features: Features,
    variants: Annotated[
        Path,
        typer.Option(help="YAML file: a variant's name → dotted keys of --config and values."),
    ],
    tags: Annotated[
        Path | None,
        typer.Option(
            help="What happens in each video: tags.csv, a YAML manifest, or published "
            "annotations; otherwise tags.csv or gt.json among the features."
        ),
    ] = None,
    annotations: Annotations = None,
    subset: Annotated[
        str | None,
        typer.Option(help="Subset of the annotations to score; otherwise the configuration's."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/ablation"),
    seeds: Annotated[
        int, typer.Option(min=1, help="Train each variant with so many seeds, from 0 on.")
    ] = 5,
    threads: Threads = 1,
) -> None:
    """Train variants of one configuration with several seeds, and compare their mAP.

    Prints a table of mean and standard deviation over seeds; finished runs are not trained again.

    s2net ablate --features features --variants configs/training/ablation-scenes.yaml
    --subset validation
    """
    with needs_torch():
        from training.benchmarks.ablate import ablate as run_ablation  # noqa: PLC0415 - needs torch
        from training.benchmarks.ablate import read_variants  # noqa: PLC0415
        from training.evaluation.whole_video import judge_of  # noqa: PLC0415
    from engine.files.strict_yaml import read_yaml  # noqa: PLC0415
    from training.config import training_config  # noqa: PLC0415
    from training.data import (  # noqa: PLC0415
        evaluation_set,
        features_manifest,
        training_set,
    )

    content, _ = read_yaml(config_file(config))
    choice = training_config(content, str(config)).data
    videos = training_set(choice, features, tags, note)
    scored = evaluation_set(choice, features, annotations, subset, note, videos.class_names)
    listed, _ = read_yaml(config_file(variants, "--variants"))
    with _training_bar() as show:
        table = run_ablation(
            content,
            read_variants(listed, str(variants)),
            range(seeds),
            videos,
            out,
            judge_of(scored),
            manifest=features_manifest(choice, features),
            threads=threads,
            on_progress=lambda name, seed, progress: show(f"{name} seed {seed} ", progress),
        )
    typer.echo(table.markdown())


def export(
    run: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of a run, as s2net train wrote it; of several, the mean of their scores."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the bundle.")],
    base: Annotated[
        str, typer.Option(help="Bundle whose backbone made the features, by name or folder.")
    ] = "kinetics400-160",
    name: Annotated[
        str | None, typer.Option(help="Name of the bundle; otherwise that of --out's folder.")
    ] = None,
    *,
    without_backbone: Annotated[
        bool,
        typer.Option(
            "--without-backbone",
            help="Name the base bundle instead of copying its backbone of 49 MB.",
        ),
    ] = False,
    precision: Precision = "f32",
    calibrate: Calibrate = None,
    snippets: Snippets = N_SNIPPETS,
) -> None:
    """Make a bundle of a run, for the daemon: s2netd localize my.mp4 --bundle bundles/mine.

    s2net export runs/mine --out bundles/mine

    s2net export runs/seed-0 runs/seed-1 runs/sal --out bundles/ensemble

    s2net export runs/mine --precision int8 --calibrate my_clips --out bundles/mine-int8
    """
    with needs_torch():
        from training.export.ensemble import ensemble_of  # noqa: PLC0415
        from training.export.export import export as export_run  # noqa: PLC0415
        from training.learning.checkpoints import load_run  # noqa: PLC0415 - needs torch
        from training.learning.distillation import look_ahead_of  # noqa: PLC0415
    from engine.bundle.model_bundle import ModelBundle, resolve_bundle  # noqa: PLC0415
    from engine.bundle.room import make_room  # noqa: PLC0415
    from training.live_defaults import live_defaults  # noqa: PLC0415
    from training.precision.convert import precision_of  # noqa: PLC0415

    wanted, folder = precision_of(precision), resolve_bundle(base)
    members = [load_run(existing(folder, "run")) for folder in run]
    trained = members[0] if len(members) == 1 else ensemble_of(members)
    network = " + ".join(member.config.network.kind for member in members)
    seeds = ", ".join(str(member.config.seed) for member in members)
    original = ModelBundle.load(folder)
    make_room(out)
    clips = footage(wanted, calibrate, original, snippets)
    with stages() as show:
        written = export_run(
            trained,
            original,
            out,
            name=name or out.name,
            source=f"{network}, {len(trained.class_names)} classes, seed {seeds}",
            changes=live_defaults(trained.grid, look_ahead_of(members)),
            without_backbone=without_backbone,
            precision=wanted,
            clips=clips,
            on_progress=show,
        )
    model = ModelBundle.load(written)
    typer.echo(f"{model.model_id} in {written}: {', '.join(model.spec.class_names)}")
    if wanted != "f32":
        tell(original, model, clips)


def parity(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    bundle: Annotated[str, typer.Argument(help="The bundle that was exported from the run.")],
    features: Annotated[
        Path | None,
        typer.Option(help="Folder of feature files, to compare on real windows and events too."),
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision of OpenVINO: f32 or bf16.")] = "f32",
) -> None:
    """Compare a run in torch with its bundle in OpenVINO; exit 1 if an error is beyond 1e-4.

    Prints a table of errors by window and output; below f32 it also compares events.

    s2net parity runs/mine bundles/mine --features features
    """
    with needs_torch():
        from training.export.parity import with_events  # noqa: PLC0415
        from training.learning.checkpoints import load_run  # noqa: PLC0415 - needs torch
    from engine.backends.names import ARITHMETICS, check_name  # noqa: PLC0415
    from engine.bundle.model_bundle import ModelBundle, resolve_bundle  # noqa: PLC0415
    from training.loaders.clips import load_unlabelled  # noqa: PLC0415

    check_name("--precision", precision, ARITHMETICS)
    folder = resolve_bundle(bundle)
    trained = load_run(existing(run, "run"))
    model = ModelBundle.load(folder)
    records = load_unlabelled(features).records if features else ()
    report = with_events(trained, model, records, precision)
    typer.echo(report.table())
    if not report.holds:
        raise DataError(f"{bundle} is not what {run} gives: export it again")
