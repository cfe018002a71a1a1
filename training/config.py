"""A training configuration: YAML in, frozen values out. Every key must be there, and no other.

``network`` and ``batches`` are chosen by their ``kind``, and the rest of those sections belongs
to the kind. ``teacher`` changes, by dotted keys, the network that makes the pseudo labels.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from engine.errors import DataError
from engine.files.strict_yaml import parse, plain, read_plain, read_yaml
from training.data import DataChoice
from training.networks import NETWORKS, STUDENTS

UNSHRUNK: Mapping[str, object] = {"whitening_shrink": 0.0}  # of a trunk of an earlier version
UPRIGHT: Mapping[str, object] = {"lean": 0.0, "reach": 0.3}  # of clicks of an earlier version


def _require(*, holds: bool, what: str, seen: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{what} is {seen}, wanted {wanted}")


@dataclass(frozen=True, slots=True)
class ClipBatches:
    """Short tagged clips are laid end to end in sequences; each clip stays a bag of its own.

    Attributes:
        sequences: B, the number of sequences in a batch.
        clips: Number of clips in a sequence.
    """

    sequences: int
    clips: int

    def __post_init__(self) -> None:
        _require(holds=self.sequences >= 1, what="sequences", seen=self.sequences, wanted=">= 1")
        _require(holds=self.clips >= 1, what="clips", seen=self.clips, wanted=">= 1")

    @property
    def bags(self) -> int:
        """Number of bags that a step sees."""
        return self.sequences * self.clips


@dataclass(frozen=True, slots=True)
class VideoBatches:
    """Whole videos, each sampled to one length.

    Attributes:
        videos: B, the number of videos in a batch.
        length: T, the number of snippets that every video is sampled to.
        pairs: Number of pairs of videos that share a tag, at the head of the batch; the
            co-activity loss needs them.
    """

    videos: int
    length: int
    pairs: int

    def __post_init__(self) -> None:
        _require(holds=self.length >= 1, what="length", seen=self.length, wanted=">= 1")
        _require(holds=self.videos >= 1, what="videos", seen=self.videos, wanted=">= 1")
        _require(
            holds=0 <= 2 * self.pairs <= self.videos,
            what="pairs",
            seen=self.pairs,
            wanted=f"0..{self.videos // 2}, half of videos",
        )

    @property
    def bags(self) -> int:
        """Number of bags that a step sees."""
        return self.videos


BATCHES: dict[str, type[ClipBatches | VideoBatches]] = {
    "clips": ClipBatches,
    "videos": VideoBatches,
}


@dataclass(frozen=True, slots=True)
class Optimiser:
    """Settings of Adam and of the average of the weights.

    Attributes:
        learning_rate: Learning rate of every parameter.
        weight_decay: Factor of L2, added to the gradient as in Adam, not as in AdamW.
        clip_norm: Largest gradient norm; 0 never clips.
        average_decay: Decay of the exponential moving average of the weights, which is what is
            kept.
        mixed_precision: Whether bf16 autocast is used; it works only on a GPU.
    """

    learning_rate: float
    weight_decay: float
    clip_norm: float
    average_decay: float
    mixed_precision: bool

    def __post_init__(self) -> None:
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            _require(holds=value >= 0, what=name, seen=value, wanted=">= 0")
        rate, decay = self.learning_rate, self.average_decay
        _require(holds=rate > 0, what="learning_rate", seen=rate, wanted="> 0")
        _require(holds=0 <= decay < 1, what="average_decay", seen=decay, wanted="in [0, 1)")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a round trains.

    Attributes:
        unit: What ``length`` counts. Epochs suit data sets of unknown size, because the number of
            passes over the data is what makes scores collapse onto the cores of actions
            (scenes.md section 2).
        length: Length of one round; under the label-free rule, the longest that is tried.
    """

    unit: Literal["iterations", "epochs"]
    length: int

    def __post_init__(self) -> None:
        _require(holds=self.length >= 1, what="length", seen=self.length, wanted=">= 1")

    def iterations(self, n_bags: int, bags_a_step: int) -> int:
        """Return the number of steps of a round over ``n_bags`` bags."""
        if self.unit == "iterations":
            return self.length
        return max(1, -(-self.length * n_bags // bags_a_step))


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """How a teacher's scores become targets (scenes.md section 3).

    Attributes:
        share: The mean of a bag's highest ``1 / share`` of scores is put to 1, that of its lowest
            to 0.
        low: Where on this scale a target begins to rise from 0.
        high: Where on this scale it reaches 1.
    """

    share: int
    low: float
    high: float

    def __post_init__(self) -> None:
        _require(holds=self.share >= 1, what="share", seen=self.share, wanted=">= 1")
        _require(
            holds=self.low < self.high,
            what="low, high",
            seen=(self.low, self.high),
            wanted="in rising order",
        )


@dataclass(frozen=True, slots=True)
class Points:
    """What clicks count for; without clicks it means nothing.

    Attributes:
        weight: Of the loss of clicks beside the network's own losses; 0 leaves it out.
        focus: Exponent of its focal form; 0 is the plain cross-entropy.
        level: Where the scores around a click end its segment in a second round, between the
            lowest (0) and the highest (1).
        lean: How far these scores lean towards what looks like clicked snippets, as a share of
            their height; 0: not at all.
        reach: The level, lower than ``level``, that bounds where they do.
    """

    weight: float = 0.05
    focus: float = 2.0
    level: float = 0.7
    lean: float = 0.3
    reach: float = 0.3

    def __post_init__(self) -> None:
        for name in ("weight", "focus", "lean"):
            value = getattr(self, name)
            _require(holds=value >= 0, what=name, seen=value, wanted=">= 0")
        for name in ("level", "reach"):
            value = getattr(self, name)
            _require(holds=0 <= value <= 1, what=name, seen=value, wanted="in [0, 1]")


@dataclass(frozen=True, slots=True)
class HardNegatives:
    """What is learned from footage in which nothing happens; without such it means nothing.

    Attributes:
        share: As many stretches of it as this share of the clips: those where most was found.
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        _require(holds=self.share > 0, what="share", seen=self.share, wanted="> 0")


@dataclass(frozen=True, slots=True)
class Stopping:
    """When to stop, without ever looking at intervals.

    Attributes:
        rule: ``fixed`` stops after the schedule. ``label_free`` trains once without the held-out
            videos, takes the first check within ``within`` points of the best held-out tag mAP,
            then trains afresh on everything for as many epochs.
        holdout: Share of the tagged videos that is held out, in (0, 1).
        within: How far below the best a check may be, in points of mAP, 0..100.
        check_every: Iterations between checks.
    """

    rule: Literal["fixed", "label_free"]
    holdout: float
    within: float
    check_every: int

    def __post_init__(self) -> None:
        _require(holds=0 < self.holdout < 1, what="holdout", seen=self.holdout, wanted="in (0, 1)")
        _require(holds=self.within >= 0, what="within", seen=self.within, wanted=">= 0")
        _require(
            holds=self.check_every >= 1, what="check_every", seen=self.check_every, wanted=">= 1"
        )


@dataclass(frozen=True, slots=True)
class Log:
    """What is written while a network trains.

    Attributes:
        every: Iterations between rows of ``log.csv``.
        save_every: Iterations between resumable states.
        tensorboard: Whether TensorBoard files are written too, where it is installed.
    """

    every: int
    save_every: int
    tensorboard: bool

    def __post_init__(self) -> None:
        _require(holds=self.every >= 1, what="every", seen=self.every, wanted=">= 1")
        _require(
            holds=self.save_every >= 1, what="save_every", seen=self.save_every, wanted=">= 1"
        )


@dataclass(frozen=True, slots=True)
class NetworkChoice:
    """A row of the table ``NETWORKS``, or of ``STUDENTS``, and that row's own configuration."""

    kind: str
    config: Any


@dataclass(frozen=True, slots=True)
class _Rest:
    """The sections that are the same for all kinds."""

    data: DataChoice
    background: Literal["camera", "none"]
    optimiser: Optimiser
    schedule: Schedule
    rounds: Literal[1, 2]
    pseudo_labels: PseudoLabels
    points: Points
    hard_negatives: HardNegatives
    stopping: Stopping
    seed: int
    log: Log

    def __post_init__(self) -> None:
        _require(holds=self.seed >= 0, what="seed", seen=self.seed, wanted=">= 0")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """All that decides a training besides its data.

    Attributes:
        network: The network of the last round, which is the one that is kept.
        teacher: The network of the round before it, if there are two.
        batches: How bags become batches.
        data: Which loader reads the videos.
        background: ``camera`` subtracts the camera mean from features, ``none`` does not.
        optimiser: Settings of Adam and of the average of the weights.
        schedule: Length of a round.
        rounds: 1, or 2 to add a round on the first one's pseudo labels.
        pseudo_labels: How these labels are made.
        points: What clicks count for.
        hard_negatives: What is learned from footage in which nothing happens.
        stopping: Whether the schedule or held-out tags decide the length.
        seed: Seed of weights, order and dropout.
        log: What is written during training.
        content: The YAML form of all this, with every key resolved.
    """

    network: NetworkChoice
    teacher: NetworkChoice
    batches: ClipBatches | VideoBatches
    data: DataChoice
    background: Literal["camera", "none"]
    optimiser: Optimiser
    schedule: Schedule
    rounds: Literal[1, 2]
    pseudo_labels: PseudoLabels
    points: Points
    hard_negatives: HardNegatives
    stopping: Stopping
    seed: int
    log: Log
    content: Mapping[str, Any]


def read_training_config(
    path: Path,
    overrides: Mapping[str, object] | None = None,
    change: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> TrainingConfig:
    """Read a configuration file, with some of its keys changed.

    Args:
        path: The YAML file.
        overrides: Dotted key → value, e.g. ``{"network.interaction.sta": False}``.
        change: Makes other values of the file's, before the overrides.

    Raises:
        BundleError: The file is unreadable, or a key or value is not what it should be.
        DataError: An override names no key that is there, or a kind is unknown.
    """
    content, _ = read_yaml(path)
    complete = _complete(content)
    if change is not None:
        complete = dict(change(complete))
    return training_config(with_overrides(complete, overrides or {}, str(path)), str(path))


def training_config(content: Mapping[str, Any], where: str) -> TrainingConfig:
    """Make a configuration of plain YAML values.

    Args:
        content: The values.
        where: Where they are from, for messages.

    Raises:
        BundleError: A key or value is not what it should be.
        DataError: A section is missing, or a kind is unknown.
    """
    content = _complete(content)
    special = ("network", "teacher", "batches")
    if missing := [key for key in special if not isinstance(content.get(key), Mapping)]:
        raise DataError(f"{where}: {missing[0]} is {content.get(missing[0])!r}, wanted a section")
    student = _network(content["network"], f"{where}: network")
    changed = with_overrides(content, content["teacher"], f"{where}: teacher")
    teacher = _network(changed["network"], f"{where}: teacher")
    kind, given = _kind(content["batches"], BATCHES, f"{where}: batches")
    batches = parse(BATCHES[kind], given, f"{where}: batches")
    own = {key: value for key, value in content.items() if key not in special}
    rest = parse(_Rest, own, where)
    resolved: dict[str, Any] = {
        "network": {"kind": student.kind, **_section(student.config)},
        "teacher": dict(content["teacher"]),
        "batches": {"kind": kind, **_section(batches)},
        **_section(rest),
    }
    parts = {field.name: getattr(rest, field.name) for field in fields(_Rest)}
    return TrainingConfig(
        network=student, teacher=teacher, batches=batches, content=resolved, **parts
    )


def _complete(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the sections and keys that files of an earlier version do not have."""
    added = {"points": Points(), "hard_negatives": HardNegatives()}
    whole = {**{name: _section(section) for name, section in added.items()}, **content}
    if isinstance(points := whole["points"], Mapping):
        whole["points"] = {**UPRIGHT, **points}
    network = whole.get("network")
    trunk = network.get("trunk") if isinstance(network, Mapping) else None
    if isinstance(network, Mapping) and isinstance(trunk, Mapping):
        whole["network"] = {**network, "trunk": {**UNSHRUNK, **trunk}}
    return whole


def with_overrides(
    content: Mapping[str, Any], overrides: Mapping[str, object], where: str
) -> dict[str, Any]:
    """Copy a configuration's YAML values, with dotted keys changed.

    Raises:
        DataError: A key's section, or the key in it, is not there.
    """
    changed = copy.deepcopy(dict(content))
    for dotted, value in overrides.items():
        *path, last = str(dotted).split(".")
        section: Any = changed
        for part in path:
            section = section.get(part) if isinstance(section, Mapping) else None
        if not isinstance(section, dict) or last not in section:
            raise DataError(f"{where}: there is no key {dotted} to change")
        section[last] = value
    return changed


def parse_override(text: str) -> tuple[str, object]:
    """Split ``network.interaction.sta=off`` into its dotted key and its YAML value.

    Raises:
        DataError: The text is no ``key=value``, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise DataError(f"{text!r} is no key=value, e.g. network.sta=off")
    try:
        return key.strip(), read_plain(value)
    except ValueError as error:
        raise DataError(f"{text!r}: {value!r} {error}") from error


def _network(section: Mapping[str, Any], where: str) -> NetworkChoice:
    table = STUDENTS if section.get("kind") in STUDENTS else NETWORKS
    kind, own = _kind(section, table, where)
    return NetworkChoice(kind, parse(table[kind].config_type, own, where))


def _kind(
    section: Mapping[str, Any], table: Mapping[str, object], where: str
) -> tuple[str, dict[str, Any]]:
    kind = section.get("kind")
    if kind not in table:
        raise DataError(f"{where}.kind is {kind!r}, wanted one of {sorted(table)}")
    return str(kind), {key: value for key, value in section.items() if key != "kind"}


def _section(value: object) -> dict[str, Any]:
    found = plain(value)
    return dict(found) if isinstance(found, Mapping) else {}
