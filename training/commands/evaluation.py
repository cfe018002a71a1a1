"""Commands that judge networks: evaluate, calibrate."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import DataError
from training.commands.screen import (
    Annotations,
    Features,
    counting,
    existing,
    needs_torch,
    note,
)

if TYPE_CHECKING:
    from engine.bundle.model_bundle import ModelBundle
    from engine.cas import BackendLocalizer
    from engine.spec import ModelSpec
    from training.evaluation.matching import Detections, Truth
    from training.evaluation.recalibrate import Fit
    from training.records import FeatureSet, VideoRecord


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(evaluate)
    app.command()(calibrate)


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a run, or a bundle.")],
    features: Features,
    annotations: Annotations = None,
    subset: Annotated[
        str | None,
        typer.Option(
            help="Subset of the annotations to score, such as testing, validation or test; "
            "otherwise the configuration's, or testing for a bundle."
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="seconds compares exact times; snippet-rounded rounds them to snippets first, as "
            "some published figures do."
        ),
    ] = "seconds",
    ambiguous: Annotated[
        Path | None,
        typer.Option(help="THUMOS14's Ambiguous_test.txt: its intervals count neither way."),
    ] = None,
    *,
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming",
            help="Score a bundle as a live camera gets it, through the daemon's own session.",
        ),
    ] = False,
    quiet: Annotated[
        str | None,
        typer.Option(
            help="With --streaming: a subset in which nothing happens, or a folder of features of "
            "such footage, for false alarms."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --streaming: folder for figures and plot.")
    ] = None,
) -> None:
    """Measure the mAP of a run or a bundle on whole videos or, with --streaming, of a live camera.

    Prints a table, in percent; with --streaming also delays, false alarms, accuracy against delay.

    s2net evaluate runs/mine --features features --annotations annotations.json

    s2net evaluate bundles/mine --features features --subset testing --streaming --quiet quiet
    """
    if protocol not in ("seconds", "snippet-rounded"):
        raise DataError(f"--protocol is {protocol!r}, wanted seconds or snippet-rounded")
    if streaming:
        _evaluate_streaming(model, features, annotations, subset, quiet, out)
        return
    from training.evaluation.average_precision import mean_average_precision  # noqa: PLC0415 - after the options
    from training.loaders.thumos import read_ambiguous  # noqa: PLC0415

    is_run = (Path(model) / "checkpoint.safetensors").is_file()
    judged = _judged_run if is_run else _judged_bundle
    truth, detections, videos = judged(model, features, annotations, subset)
    result = mean_average_precision(
        truth,
        detections,
        len(videos.class_names),
        protocol="snippet-rounded" if protocol == "snippet-rounded" else "seconds",
        grid=videos.grid,
        ambiguous=read_ambiguous(ambiguous) if ambiguous else (),
    )
    typer.echo(result.table(videos.class_names))


def _judged_run(
    model: str, features: Path, annotations: Path | None, subset: str | None
) -> "tuple[Truth, Detections, FeatureSet]":
    with needs_torch():
        from training.evaluation.whole_video import scored  # noqa: PLC0415
        from training.learning.checkpoints import load_run  # noqa: PLC0415 - needs torch
    from training.data import evaluation_set  # noqa: PLC0415
    from training.loaders.features import check_manifest  # noqa: PLC0415

    run = load_run(Path(model))
    if run.config.data.kind == "clips":
        check_manifest(existing(features, "--features"), run.manifest)
    names = run.class_names if run.config.data.kind == "clips" else None
    videos = evaluation_set(run.config.data, features, annotations, subset, note, names)
    return *scored(run, videos), videos


def _judged_bundle(
    model: str, features: Path, annotations: Path | None, subset: str | None
) -> "tuple[Truth, Detections, FeatureSet]":
    from training.evaluation.matching import Detections, Truth  # noqa: PLC0415 - after the options
    from training.evaluation.stream_runs import whole_video_detections  # noqa: PLC0415

    with _opened(model, features) as (bundle, localizer):
        videos = _annotated(bundle, features, annotations, subset)
        known = [record for record in videos.records if record.truth is not None]
        found = {}
        with counting("localizing", len(known)) as done:
            for number, record in enumerate(known, start=1):
                found[record.name] = whole_video_detections(record, bundle.spec, localizer)
                done(number)
    truth = Truth.of(known)
    return truth, Detections.of(found, truth.videos), videos


def _evaluate_streaming(
    model: str,
    features: Path,
    annotations: Path | None,
    subset: str | None,
    quiet: str | None,
    out: Path | None,
) -> None:
    from training.evaluation.streaming_report import streaming_report  # noqa: PLC0415 - only here

    with _opened(model, features) as (bundle, localizer):
        videos = _annotated(bundle, features, annotations, subset)
        silent = _silent(bundle, features, annotations, quiet)
        report = streaming_report(videos.records, silent, bundle.spec, localizer)
    typer.echo(report.table())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        report.write(out, note)
        typer.echo(f"figures and plot in {out}")


def _silent(
    bundle: "ModelBundle", features: Path, annotations: Path | None, quiet: str | None
) -> "tuple[VideoRecord, ...]":
    """Footage in which nothing happens: a folder's, or a subset's; () if there is none."""
    from training.feature_files import manifest_of  # noqa: PLC0415 - after the options
    from training.loaders.clips import load_quiet  # noqa: PLC0415
    from training.loaders.features import check_manifest  # noqa: PLC0415

    if quiet is None:
        return ()
    if not Path(quiet).is_dir():
        return _annotated(bundle, features, annotations, quiet).records
    check_manifest(Path(quiet), manifest_of(bundle))
    return load_quiet(Path(quiet)).records


def calibrate(
    bundle: Annotated[str, typer.Argument(help="The bundle to calibrate, by name or folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the calibrated bundle.")],
    features: Annotated[
        Path | None,
        typer.Option(
            help="Folder of feature files with annotations: to fit on; with --max-false-per-day "
            "to tell what the quiet costs.",
            exists=True,
        ),
    ] = None,
    annotations: Annotations = None,
    subset: Annotated[
        str,
        typer.Option(help="Subset of --features; never take the one that you report on."),
    ] = "validation",
    quiet: Annotated[
        str | None,
        typer.Option(
            help="A folder of features of footage in which nothing happens, with "
            "--max-false-per-day; or another subset of --features to fit on."
        ),
    ] = None,
    false_alarms_per_hour: Annotated[
        float,
        typer.Option(
            min=0, help="How many false alarms a camera may give in an hour, of all classes."
        ),
    ] = 30.0,
    max_false_per_day: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="With a --quiet folder: how many a camera may give in a day, of all classes.",
        ),
    ] = None,
) -> None:
    """Write a bundle again with opening scores fitted to a wanted rate of false alarms.

    Each class gets the lowest score that keeps to its share of the rate.
    Where only quiet footage is there, scores are raised until it gives few enough events; a
    camera with an hour of it or more gets scores of its own.
    Prints the scores and the rates that they give, and of --features what is found then.

    s2net calibrate bundles/mine --features features --out bundles/mine-quieter
    --false-alarms-per-hour 10

    s2net calibrate bundles/mine --quiet quiet-features --max-false-per-day 2 --out bundles/quieter

    s2net calibrate bundles/mine --quiet quiet-features --max-false-per-day 2 --features features
    --out bundles/quieter
    """
    from training.evaluation import recalibrate  # noqa: PLC0415 - used by this command only

    videos = None
    if max_false_per_day is not None:
        if features is not None:  # before minutes are spent on fitting
            with _opened(bundle, features) as (model, _):
                videos = _annotated(model, features, annotations, subset)
        model, fit = _fitted_on_quiet(bundle, quiet, max_false_per_day)
        what = "in which nothing happens"
    elif features is None:
        raise DataError(
            "say what to fit on: --features FOLDER, or --quiet FOLDER with --max-false-per-day"
        )
    else:
        with _opened(bundle, features) as (model, localizer):
            videos = _annotated(model, features, annotations, subset)
            silent = _annotated(model, features, annotations, quiet).records if quiet else ()
            fit = recalibrate.fit_opening_scores(
                (*videos.records, *silent), model.spec, localizer, false_alarms_per_hour
            )
        what = f"of {subset}"
    written = recalibrate.with_opening_scores(model, fit, out)
    for index, (name, score, rate) in enumerate(
        zip(model.spec.class_names, fit.scores, fit.false_alarms_per_hour, strict=True)
    ):
        was = model.spec.tracker.open_score_of(index)
        typer.echo(
            f"{name:<20}opens at {score:.2f} (was {was:.2f})   {rate:5.1f} false alarms an hour "
            f"there, {recalibrate.HOURS_A_DAY * rate:.0f} a day"
        )
    for camera, scores in fit.cameras.items():
        told = ", ".join(f"{score:.2f}" for score in scores)
        typer.echo(f"camera {camera} has its own: {told}")
    if features is not None and videos is not None:
        _tell_cost(model.spec, written, videos, features)
    typer.echo(f"{written}: on {fit.hours:.2f} camera-hours {what}")


def _tell_cost(was: "ModelSpec", written: Path, videos: "FeatureSet", features: Path) -> None:
    """Say what a live camera finds with the written bundle's scores, beside those it had."""
    from training.evaluation.stream_runs import delay_accuracy_curve  # noqa: PLC0415 - only here

    with _opened(str(written), features) as (model, localizer):
        before, after = (
            delay_accuracy_curve(videos.records, spec, localizer, [spec.tracker.freeze_us])[
                0
            ].result
            for spec in (was, model.spec)
        )
    n_actions = before.map_last.n_truth
    if not n_actions:
        note("the videos of --features hold no action: what the scores cost is not known")
        return
    typer.echo(
        f"of {n_actions} actions {n_actions - after.n_missed} are found "
        f"(were {n_actions - before.n_missed}); precision {after.precision:.2f} "
        f"(was {before.precision:.2f})"
    )


def _fitted_on_quiet(
    bundle: str, quiet: str | None, max_false_per_day: float
) -> "tuple[ModelBundle, Fit]":
    from training.evaluation.recalibrate import (  # noqa: PLC0415 - used by this alone
        BOUNDS,
        HOURS_A_DAY,
        fit_on_quiet,
    )
    from training.loaders.clips import load_quiet  # noqa: PLC0415 - as above

    folder = None if quiet is None else Path(quiet)
    if folder is None or not folder.is_dir():
        raise DataError(
            f"--quiet is {quiet or 'not given'}; --max-false-per-day wants a folder there, "
            "such as s2net extract QUIET_VIDEOS --out FOLDER makes"
        )
    with _opened(bundle, folder) as (model, localizer):
        fit = fit_on_quiet(load_quiet(folder).records, model.spec, localizer, max_false_per_day)
    if max_false_per_day * fit.hours < HOURS_A_DAY:
        note(
            f"{fit.hours:.2f} camera-hours cannot show so few as {max_false_per_day:g} a day: "
            "of what they hold nothing may open; bring more hours for a gentler fit"
        )
    left_per_day = HOURS_A_DAY * sum(fit.false_alarms_per_hour)
    if left_per_day > max_false_per_day:
        note(
            f"not reached: {left_per_day:.0f} a day are left, which score {BOUNDS[1]:g} or more, "
            "and no class is set higher; train on such footage: s2net train --quiet FOLDER"
        )
    return model, fit


@contextmanager
def _opened(model: str, features: Path) -> "Iterator[tuple[ModelBundle, BackendLocalizer]]":
    from engine.backends import open_backend  # noqa: PLC0415 - opened by these commands only
    from engine.bundle.model_bundle import ModelBundle, resolve_bundle  # noqa: PLC0415
    from engine.cas import BackendLocalizer  # noqa: PLC0415
    from training.feature_files import manifest_of  # noqa: PLC0415
    from training.loaders.features import check_manifest  # noqa: PLC0415

    bundle = ModelBundle.load(resolve_bundle(model))
    check_manifest(existing(features, "--features"), manifest_of(bundle))
    backend = open_backend("openvino", bundle.localizer_path, precision="f32")
    try:
        yield bundle, BackendLocalizer(backend)
    finally:
        backend.close()


def _annotated(
    bundle: "ModelBundle", features: Path, annotations: Path | None, subset: str | None
) -> "FeatureSet":
    from training.data import DataChoice, evaluation_set  # noqa: PLC0415 - after the options

    clips = DataChoice("clips", "rgb", "training", "testing")
    return evaluation_set(clips, features, annotations, subset, note, bundle.spec.class_names)
