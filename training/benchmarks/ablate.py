"""One configuration, named changes to it and several seeds → ``ablation.csv`` and a table."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DataError
from training.config import training_config, with_overrides
from training.learning.checkpoints import TrainedNetwork, read_json
from training.learning.progress import Progress
from training.learning.train import train
from training.records import FeatureSet

CSV = "ablation.csv"
RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Variant:
    """A named change of a configuration.

    Attributes:
        name: Its name, which can be that of a folder.
        changes: Dotted key → value; empty for the configuration as it is.
    """

    name: str
    changes: Mapping[str, object]

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise DataError(f"variant {self.name!r}: wanted a name that a folder can have")


@dataclass(frozen=True, slots=True)
class Trial:
    """One trained and judged network.

    Attributes:
        variant: Name of the variant.
        seed: Seed of the training.
        measures: What the judge measured, by name.
    """

    variant: str
    seed: int
    measures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class AblationTable:
    """All trials, variants and seeds in the order they were asked for."""

    trials: tuple[Trial, ...]

    def markdown(self, digits: int = 1) -> str:
        """Write a row for each variant and a column for each measure.

        A cell is the mean ± the sample standard deviation over seeds.
        """
        measures = list(dict.fromkeys(name for trial in self.trials for name in trial.measures))
        lines = [
            f"| variant | seeds | {' | '.join(measures)} |",
            f"|---|---:|{'---:|' * len(measures)}",
        ]
        for variant in dict.fromkeys(trial.variant for trial in self.trials):
            own = [trial.measures for trial in self.trials if trial.variant == variant]
            cells = [
                _mean_and_sd([row[name] for row in own if name in row], digits)
                for name in measures
            ]
            lines.append(f"| {variant} | {len(own)} | {' | '.join(cells)} |")
        return "\n".join(lines)


def ablate(
    content: Mapping[str, Any],
    variants: Sequence[Variant],
    seeds: Sequence[int],
    feature_set: FeatureSet,
    out: Path,
    judge: Callable[[TrainedNetwork], Mapping[str, float]],
    *,
    manifest: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Callable[[str, int, Progress], None] = lambda _variant, _seed, _progress: None,
    on_trial: Callable[[Trial], None] = lambda _trial: None,
) -> AblationTable:
    """Train and judge every variant under every seed; what is finished is not done again.

    Args:
        content: The configuration's YAML values.
        variants: At least one variant.
        seeds: At least one seed.
        feature_set: The videos that are trained on.
        out: Folder of the ablation. ``VARIANT/seed-N`` in it are run folders, and
            ``ablation.csv`` is written after every trial.
        judge: It gives the measures of a run, by name. It must not look at what is reported as
            test unless this is the report.
        manifest: The features' own manifest, as ``train`` takes it.
        device: ``cpu``, ``cuda`` or ``auto``, as ``train`` takes it.
        threads: CPU threads of torch, as ``train`` takes it.
        on_progress: Gets variant, seed and where its training stands.
        on_trial: Gets every finished trial.

    Raises:
        DataError: Two variants share a name, a change has a key that is not there, or ``out``
            holds another ablation's runs.
    """
    names = [variant.name for variant in variants]
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"two variants are called {twins[0]}: rename one")
    # Every configuration is read before the first is trained, so that a typo costs no night.
    configs = {
        (variant.name, seed): training_config(
            with_overrides(content, {**variant.changes, "seed": seed}, variant.name),
            variant.name,
        )
        for variant in variants
        for seed in seeds
    }
    trials: list[Trial] = []
    for (name, seed), config in configs.items():
        folder = out / name / f"seed-{seed}"
        run = train(
            config,
            feature_set,
            folder,
            manifest=manifest,
            device=device,
            threads=threads,
            on_progress=partial(on_progress, name, seed),
        )
        trials.append(Trial(name, seed, _judged(run, folder / RESULT, judge)))
        _write_csv(out / CSV, trials)
        on_trial(trials[-1])
    return AblationTable(tuple(trials))


def read_variants(content: Mapping[str, Any], where: str) -> tuple[Variant, ...]:
    """Make variants of YAML values: name → dotted keys and values.

    A name with ``{}`` or nothing stands for the configuration as it is.

    Raises:
        DataError: The values, which are from ``where``, are not of that form.
    """
    found = []
    for name, changes in content.items():
        if changes is not None and not isinstance(changes, Mapping):
            raise DataError(f"{where}: {name} is {changes!r}, wanted dotted keys and values")
        found.append(Variant(str(name), dict(changes or {})))
    if not found:
        raise DataError(f"{where} names no variant")
    return tuple(found)


def _judged(
    run: TrainedNetwork, path: Path, judge: Callable[[TrainedNetwork], Mapping[str, float]]
) -> Mapping[str, float]:
    if path.exists():
        kept = read_json(path)
        if kept.get("identity") == run.identity:
            return {str(name): float(value) for name, value in kept["measures"].items()}
    measures = {name: float(value) for name, value in judge(run).items()}
    text = json.dumps({"identity": run.identity, "measures": measures}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    return measures


def _write_csv(path: Path, trials: Sequence[Trial]) -> None:
    measures = list(dict.fromkeys(name for trial in trials for name in trial.measures))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "seed", *measures])
        for trial in trials:
            cells = [trial.measures.get(name, "") for name in measures]
            writer.writerow([trial.variant, trial.seed, *cells])


def _mean_and_sd(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
