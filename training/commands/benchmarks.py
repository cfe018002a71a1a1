"""Commands that measure: runtimes, heads, rendered scenes, real fights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import DataError
from training.commands.bench_online import bench_online
from training.commands.screen import (
    Changes,
    Features,
    Threads,
    config_file,
    counting,
    counting_each,
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
    app.command()(compare)
    app.command("bench-fights")(bench_fights)
    app.command("bench-economy")(bench_economy)
    app.command("bench-online")(bench_online)


def bench(
    bundle: Annotated[
        str, typer.Option(help="Bundle whose backbone is timed, by name or folder.")
    ] = "kinetics400",
    seconds: Annotated[
        float, typer.Option(min=1, help="Seconds to measure each runtime for.")
    ] = 10,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of both runtimes; otherwise all.")
    ] = None,
) -> None:
    """Time one backbone in OpenVINO f32 and in torch fp32, in turn, and compare the features.

    Prints the median milliseconds of a snippet in each runtime and their ratio.

    s2net bench --seconds 20
    """
    with needs_torch():
        from training.benchmarks.runtimes import compare_runtimes  # noqa: PLC0415 - needs torch
    typer.echo(compare_runtimes(bundle, seconds, threads))


def bench_heads(
    *,
    passes: Annotated[int, typer.Option(min=1, help="Timed passes of each head.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of both runtimes.")] = 2,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Hold the networks' published forms against published code, instead: test and "
            "training step, in multiples of one common peer's times.",
        ),
    ] = False,
) -> None:
    """Time localizers' heads alone on 320, 750 and 2000 snippets, and one hop of a live stream.

    Prints a table of milliseconds in torch and in OpenVINO, beside a published head's.

    s2net bench-heads

    s2net bench-heads --published --passes 4
    """
    with needs_torch():
        from training.benchmarks.heads import head_cost  # noqa: PLC0415 - needs torch
        from training.benchmarks.published_costs import (  # noqa: PLC0415
            COUNTERPARTS,
            published_costs,
            table,
        )
        from training.config import read_training_config  # noqa: PLC0415
    if published:
        configs = {
            name: read_training_config(config_file(Path(f"{name}-thumos14")))
            for name in COUNTERPARTS
        }
        with err.status("timing heads"):
            comparisons = published_costs(configs, passes=passes, threads=threads)
        typer.echo(table(comparisons))
        return
    with err.status("timing heads"):
        cost = head_cost(passes=passes, threads=threads)
    typer.echo(cost.table())


def benchmark(
    scenes: Annotated[
        Path,
        typer.Option(
            help="Folder that s2net render-scenes wrote, or one with a gt.json, such as s2net "
            "plant writes."
        ),
    ],
    features: Features,
    out: Annotated[Path, typer.Option(help="Folder for runs, tables and plot.")] = Path(
        "runs/benchmark"
    ),
    variants: Annotated[
        Path,
        typer.Option(help="YAML file: a variant's name → dotted keys of --config and values."),
    ] = Path("configs/training/ablation-scenes.yaml"),
    config: Annotated[
        Path, typer.Option(help="Training configuration that the variants change.")
    ] = Path("configs/training/s2net-scenes.yaml"),
    seeds: Annotated[
        int, typer.Option(min=1, help="Train each variant with so many seeds, from 0 on.")
    ] = 5,
    only: Annotated[
        list[str] | None, typer.Option(help="Train only this variant; repeatable.")
    ] = None,
    subsets: Annotated[
        str,
        typer.Option(
            help="Subsets to score, with commas between; take test subsets only to report. A "
            "folder with a gt.json has testing alone."
        ),
    ] = "validation",
    rungs: Annotated[
        str,
        typer.Option(help="Score on what these rungs look at, too: full,half,quarter."),
    ] = "full",
    ensemble: Annotated[
        int,
        typer.Option(
            min=1,
            help="Of each variant, score so many seeds as one network, too, as s2net export makes "
            "it of several runs; 1 for none.",
        ),
    ] = 1,
) -> None:
    """Make the table of docs/measured.md: variants, chance, motion energy, full supervision.

    Trains each variant with each seed on rendered scenes; finished runs are not trained again.
    Writes results.json, results.md and benchmark.png.

    s2net benchmark --scenes scenes --features features --subsets testing,unseen

    s2net benchmark --scenes planted --features planted --config s2net-planted --variants
    ablation-planted --subsets testing
    """
    with needs_torch():
        from training.benchmarks.ablate import Variant, read_variants  # noqa: PLC0415 - needs torch
        from training.benchmarks.draws import load_draw  # noqa: PLC0415
        from training.benchmarks.scenes import run_benchmark  # noqa: PLC0415
    from engine.backends.names import check_name  # noqa: PLC0415
    from engine.files.strict_yaml import read_yaml  # noqa: PLC0415
    from engine.spec import Rung  # noqa: PLC0415
    from training.benchmarks.scenes_results import plot_results  # noqa: PLC0415
    from training.config import training_config  # noqa: PLC0415

    content, _ = read_yaml(config_file(config))
    listed, _ = read_yaml(config_file(variants, "--variants"))
    known = read_variants(listed, str(variants))
    for name in only or ():
        check_name("--only", name, [variant.name for variant in known], DataError)
    chosen = [variant for variant in known if not only or variant.name in only]
    if ensemble > seeds:
        raise DataError(f"--ensemble is {ensemble}, and there are only {seeds} --seeds")
    looks = rungs.split(",")
    for name in looks:
        check_name(
            "--rungs", name, [rung.value for rung in Rung if rung is not Rung.GATED], DataError
        )
    reading = training_config(content, str(config)).data
    data = load_draw(features, scenes, tuple(subsets.split(",")), reading, note)
    taught = () if only else (Variant("full supervision", {"network.objective.bag": 0.0}),)
    n_trials = (len(chosen) + len(taught)) * seeds
    with counting("training and scoring", n_trials) as done:
        trials: set[tuple[str, int]] = set()

        def on_rows(rows: "Sequence[ResultRow]") -> None:
            names = {variant.name for variant in (*chosen, *taught)}
            trials.update((row.variant, row.seed) for row in rows if row.variant in names)
            done(len(trials))

        results = run_benchmark(
            data,
            content,
            chosen,
            range(seeds),
            out,
            supervised=taught,
            rungs=[Rung(name) for name in looks],
            together=ensemble,
            on_rows=on_rows,
        )
    results.write(out, _BASE)
    plot_results(results, out / "benchmark.png")
    for subset in dict.fromkeys(row.subset for row in results.rows):
        typer.echo(results.markdown(subset, _BASE) + "\n")
    note(f"results.json, results.md and benchmark.png in {out}")


def compare(
    scenes: Annotated[
        Path,
        typer.Option(
            help="Folder that s2net render-scenes wrote, or one with a gt.json, such as s2net "
            "plant writes."
        ),
    ],
    features: Features,
    out: Annotated[Path, typer.Option(help="Folder for runs, tables and page.")] = Path(
        "runs/compare"
    ),
    networks: Annotated[
        str, typer.Option(help="Networks, with commas between; otherwise all.")
    ] = "",
    supervision: Annotated[
        str, typer.Option(help="What each learns from: tags, points, intervals.")
    ] = "tags,points,intervals",
    seeds: Annotated[
        int, typer.Option(min=1, help="Train each with so many seeds, from 0 on.")
    ] = 5,
    subsets: Annotated[
        str,
        typer.Option(
            help="Subsets to score, with commas between. validation chooses the scores at which "
            "events open live, testing is run live, and quiet gives false alarms. A folder with a "
            "gt.json has testing alone."
        ),
    ] = "validation,testing,unseen,quiet",
    dataset: Annotated[
        str, typer.Option(help="Whose configurations: those called NETWORK-DATASET.")
    ] = "scenes",
    changes: Changes = None,
    base: Annotated[
        str, typer.Option(help="Bundle whose backbone made the features, by name or folder.")
    ] = "kinetics400-160",
    passes: Annotated[
        int, typer.Option(min=0, help="Timed passes of each network; 0 times none.")
    ] = 5,
    threads: Threads = 1,
) -> None:
    """Compare networks under one protocol: accuracy, what is real of it, live behaviour, costs.

    Trains every network on tags, on clicks and on intervals of the same clips, with each seed.
    What is finished is kept, so it can be interrupted. Writes comparison.md, .csv and .html.

    s2net compare --scenes scenes --features features

    s2net compare --scenes scenes --features features --networks s2net,sal --supervision tags

    s2net compare --scenes planted --features planted --dataset thumos14 --networks s2net,sal
    """
    with needs_torch():
        from training.benchmarks.compare import compare as compare_networks  # noqa: PLC0415
        from training.benchmarks.compare import contenders  # noqa: PLC0415
        from training.benchmarks.compare_costs import costs  # noqa: PLC0415
        from training.benchmarks.compare_report import PAGE, Comparison  # noqa: PLC0415
        from training.benchmarks.draws import load_draw  # noqa: PLC0415 - needs torch
        from training.benchmarks.supervision import SUPERVISIONS  # noqa: PLC0415
        from training.networks import NETWORKS  # noqa: PLC0415
    from engine.backends.names import check_name  # noqa: PLC0415
    from engine.bundle.model_bundle import ModelBundle, resolve_bundle  # noqa: PLC0415
    from engine.files.strict_yaml import read_yaml  # noqa: PLC0415
    from training.config import parse_override, training_config, with_overrides  # noqa: PLC0415

    chosen = networks.split(",") if networks else list(NETWORKS)
    for name in chosen:
        check_name("--networks", name, list(NETWORKS), DataError)
    kinds = supervision.split(",")
    for name in kinds:
        check_name("--supervision", name, SUPERVISIONS, DataError)
    overrides = dict(parse_override(text) for text in changes or ())
    contents = {
        name: with_overrides(
            read_yaml(config_file(Path(f"{name}-{dataset}"), "--dataset"))[0], overrides, name
        )
        for name in chosen
    }
    backbone = ModelBundle.load(resolve_bundle(base))
    reading = training_config(contents[chosen[0]], chosen[0]).data
    data = load_draw(features, scenes, tuple(subsets.split(",")), reading, note)
    n_trials = len(contenders(chosen)) * len(kinds) * seeds
    with counting_each("training and scoring", n_trials) as on_trial:
        trials = compare_networks(
            data,
            contents,
            [kind for kind in SUPERVISIONS if kind in kinds],
            range(seeds),
            backbone,
            out,
            threads=threads,
            on_trial=on_trial,
        )
    timed = (
        costs(contents, data.tagged.feature_dim, passes=passes, threads=threads) if passes else []
    )
    comparison = Comparison(tuple(trials), tuple(timed), data.tagged.class_names)
    comparison.write(out, note)
    typer.echo((out / "comparison.md").read_text(encoding="utf-8"))
    note(f"comparison.md, comparison.csv and {PAGE} in {out}")


def bench_fights(
    clips: Annotated[Path, typer.Argument(help="Folder of clips with their manifest.json.")],
    out: Annotated[Path, typer.Option(help="Folder for videos, features and runs.")] = Path(
        "runs/fights"
    ),
    config: Annotated[Path, typer.Option(help="Training configuration.")] = Path(
        "configs/training/s2net-clips.yaml"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Train with so many seeds, from 0 on.")] = 5,
) -> None:
    """Measure how well real CCTV fights are found after training from tags, beside baselines.

    Rewrites clips, joins test clips to streams, extracts features, trains, and prints two tables:
    of the streams, and of whole clips ranked on sources not trained on (5 splits by source),
    beside a regression on mean features. report.md and sources.csv in the folder keep them.
    What is finished is kept, so it can be interrupted.

    s2net bench-fights fight_surv
    """
    with needs_torch():
        from training.benchmarks.fights_report import fight_report  # noqa: PLC0415 - needs torch
        from training.benchmarks.fights_sources import N_SPLITS, source_report  # noqa: PLC0415
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
            config_file(config),
            out / "runs",
            seeds=range(seeds),
            threads=1,
            on_seed=lambda seed: done(seed + 1),
        )
    with counting("training without some sources", N_SPLITS * seeds) as done:
        by_source = source_report(
            data.clips,
            out / "features",
            config_file(config),
            out / "runs",
            seeds=range(seeds),
            threads=1,
            on_run=done,
        )
    text = f"{report.table()}\n\n{by_source.table()}"
    (out / "report.md").write_text(f"{text}\n", encoding="utf-8")
    (out / "sources.csv").write_text(by_source.rows(), encoding="utf-8")
    typer.echo(text)


def bench_economy(
    scenes: Annotated[Path, typer.Option(help="Folder that s2net render-scenes wrote.")],
    bundle: Annotated[str, typer.Option(help="Bundle, by name or folder.")] = "scenes",
    subsets: Annotated[
        str, typer.Option(help="Subsets to score, with commas between.")
    ] = "testing,unseen,quiet",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the networks.")
    ] = None,
) -> None:
    """Measure what it costs to look at less: rungs of the ladder and the motion gate.

    Puts videos through the live session under each economy, and prints how much
    was looked at, mAP, false alarms and delays as a Markdown table.

    s2net bench-economy --scenes scenes --bundle scenes-int8
    """
    from training.benchmarks.economy import measure_economies, table  # noqa: PLC0415

    with counting("videos") as on_progress:
        rows = measure_economies(
            bundle, existing(scenes, "--scenes"), subsets.split(","), threads, on_progress
        )
    typer.echo(table(rows))
