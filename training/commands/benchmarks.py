"""Commands that measure: runtimes, heads, rendered scenes, real fights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import DataError
from training.commands.screen import (
    Features,
    counting,
    err,
    existing,
    needs_torch,
    note,
    processes_here,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.benchmarks.scenes_results import ResultRow

_BASE = "base-topk"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(bench)
    app.command("bench-heads")(bench_heads)
    app.command()(benchmark)
    app.command("bench-fights")(bench_fights)


def bench(
    bundle: Annotated[str, typer.Option(help="Whose backbone.")] = "kinetics400",
    seconds: Annotated[float, typer.Option(min=1, help="Length of each measurement.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of both.")] = None,
) -> None:
    """Time one backbone in OpenVINO f32 and in torch fp32, in one run, and compare the answers.

    s2net bench --seconds 20
    """
    with needs_torch():
        from training.benchmarks.runtimes import compare_runtimes  # noqa: PLC0415 - needs torch
    typer.echo(compare_runtimes(bundle, seconds, threads))


def bench_heads(
    passes: Annotated[int, typer.Option(min=1, help="Timed passes of each.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of both runtimes.")] = 2,
) -> None:
    """Time localization heads alone at T = 320, 750 and 2000, and one hop of a live stream.

    s2net bench-heads
    """
    with needs_torch():
        from training.benchmarks.heads import head_cost  # noqa: PLC0415 - needs torch
    with err.status("timing heads"):
        cost = head_cost(passes=passes, threads=threads)
    typer.echo(cost.table())


def benchmark(
    scenes: Annotated[Path, typer.Option(help="What s2net render-scenes wrote.")],
    features: Features,
    out: Annotated[Path, typer.Option(help="Folder of runs, tables and plot.")] = Path(
        "runs/benchmark"
    ),
    variants: Annotated[Path, typer.Option(help="YAML: name → dotted keys and values.")] = Path(
        "configs/training/ablation-scenes.yaml"
    ),
    config: Annotated[Path, typer.Option(help="What they change.")] = Path(
        "configs/training/s2net-scenes.yaml"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0..N-1.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="Only this variant; repeatable.")] = None,
    subsets: Annotated[
        str, typer.Option(help="Comma-separated; test subsets only to report.")
    ] = "validation",
) -> None:
    """The table of docs/measured.md: variants, chance, motion energy and full supervision.

    s2net benchmark --scenes scenes --features features --subsets testing,unseen
    """
    with needs_torch():
        from training.benchmarks.ablate import Variant, read_variants  # noqa: PLC0415 - needs torch
        from training.benchmarks.scenes import load_scenes, run_benchmark  # noqa: PLC0415
    from engine.backends.names import check_name  # noqa: PLC0415
    from engine.files.strict_yaml import read_yaml  # noqa: PLC0415
    from training.benchmarks.scenes_results import plot_results  # noqa: PLC0415

    content, _ = read_yaml(existing(config, "--config"))
    listed, _ = read_yaml(existing(variants, "--variants"))
    known = read_variants(listed, str(variants))
    for name in only or ():
        check_name("--only", name, [variant.name for variant in known], DataError)
    chosen = [variant for variant in known if not only or variant.name in only]
    data = load_scenes(features, scenes, tuple(subsets.split(",")), scenes.name)
    taught = () if only else (Variant("full supervision", {"network.objective.bag": 0.0}),)
    n_trials = (len(chosen) + len(taught)) * seeds
    with counting("training and scoring", n_trials) as done:
        trials: set[tuple[str, int]] = set()

        def on_rows(rows: "Sequence[ResultRow]") -> None:
            names = {variant.name for variant in (*chosen, *taught)}
            trials.update((row.variant, row.seed) for row in rows if row.variant in names)
            done(len(trials))

        results = run_benchmark(
            data, content, chosen, range(seeds), out, supervised=taught, on_rows=on_rows
        )
    results.write(out, _BASE)
    plot_results(results, out / "benchmark.png")
    for subset in dict.fromkeys(row.subset for row in results.rows):
        typer.echo(results.markdown(subset, _BASE) + "\n")
    note(f"results.json, results.md and benchmark.png in {out}")


def bench_fights(
    clips: Annotated[Path, typer.Argument(help="Folder of clips with their manifest.json.")],
    out: Annotated[Path, typer.Option(help="Folder of videos, features and runs.")] = Path(
        "runs/fights"
    ),
    config: Annotated[Path, typer.Option(help="How to train.")] = Path(
        "configs/training/s2net-clips.yaml"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0..N-1.")] = 5,
) -> None:
    """Real CCTV fights, trained from tags, on composited streams, beside simple baselines.

    s2net bench-fights fight_surv
    """
    with needs_torch():
        from training.benchmarks.fights_report import fight_report  # noqa: PLC0415 - needs torch
    from engine.bundle.model_bundle import resolve_bundle  # noqa: PLC0415
    from training.benchmarks.fights import build_fights  # noqa: PLC0415
    from training.extract import extract_in_parallel  # noqa: PLC0415

    backbone = resolve_bundle("kinetics400-160")  # before minutes of rewriting
    with err.status("rewriting clips, joining streams"):
        data = build_fights(existing(clips, "clips"), out)
    videos = sorted((out / "videos").glob("*.mp4"))
    with counting("extracting features", len(videos)) as done:
        finished: list[Path] = []

        def on_done(path: Path) -> None:
            finished.append(path)
            done(len(finished))

        extract_in_parallel(
            videos,
            backbone,
            out / "features",
            processes=processes_here(),
            on_done=on_done,
        )
    with counting("training", seeds) as done:
        report = fight_report(
            data,
            out,
            out / "features",
            existing(config, "--config"),
            out / "runs",
            seeds=range(seeds),
            threads=1,
            on_seed=lambda seed: done(seed + 1),
        )
    typer.echo(report.table())
