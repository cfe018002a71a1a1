"""The ``data`` section of a configuration → the videos to train on or to evaluate."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from engine.errors import DataError
from training.loaders.activitynet import load_activitynet
from training.loaders.clips import load_annotated, load_clips
from training.loaders.features import read_manifest
from training.loaders.thumos import Subset, load_thumos
from training.records import FeatureSet

OnNote = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DataChoice:
    """Which loader reads the videos.

    Attributes:
        kind: ``clips`` reads what ``s2net extract`` wrote, to train with a table of tags, and to
            evaluate with ``annotations.json``. ``thumos14`` and ``activitynet`` read the
            published layouts.
        modality: Which features of the published layouts; clips have what their manifest says.
        train: The subset to train on; it does not apply to clips, of which every tagged one is
            trained on.
        evaluate: The subset to evaluate on, unless another one is asked for.
    """

    kind: Literal["clips", "thumos14", "activitynet"]
    modality: Literal["rgb", "flow", "joint"]
    train: str
    evaluate: str


def training_set(
    choice: DataChoice, features: Path, tags_or_truth: Path | None, on_note: OnNote
) -> FeatureSet:
    """Read the videos to train on; of clips, only the tags are read and never an interval.

    Args:
        choice: The configuration's ``data`` section.
        features: Folder of feature files.
        tags_or_truth: File of tags or annotations; None takes ``tags.csv`` or ``gt.json`` in
            ``features``.
        on_note: Gets a line for everything that was left out.

    Raises:
        DataError: A file is missing or cannot be used.
    """
    if choice.kind == "clips":
        given = load_clips(features, tags_or_truth or _beside(features, "tags.csv", "--tags"))
        # Videos that nobody tagged may be evaluated on, so not even their mean may be learned.
        tagged = tuple(record for record in given.records if record.tags is not None)
        return replace(given, records=tagged)
    return _published(choice, features, tags_or_truth, choice.train, on_note)


def evaluation_set(
    choice: DataChoice,
    features: Path,
    annotations: Path | None,
    subset: str | None,
    on_note: OnNote,
    classes: tuple[str, ...] | None = None,
) -> FeatureSet:
    """Read the videos of one subset with every action's interval.

    Args:
        choice: The configuration's ``data`` section.
        features: Folder of feature files.
        annotations: File of annotations; None takes ``annotations.json`` or ``gt.json`` in
            ``features``.
        subset: The subset; None takes that of ``choice``.
        on_note: Gets a line for everything that was left out.
        classes: The class list, for clips; None takes the file's own.

    Raises:
        DataError: A file is missing or cannot be used.
    """
    wanted = subset or choice.evaluate
    if choice.kind == "clips":
        path = annotations or _beside(features, "annotations.json", "--annotations")
        return load_annotated(features, path, wanted, classes, on_note=on_note)
    return _published(choice, features, annotations, wanted, on_note)


def features_manifest(choice: DataChoice, features: Path) -> dict[str, object] | None:
    """Read the manifest of one's own features; published layouts have none and give None."""
    return read_manifest(features) if choice.kind == "clips" else None


def _published(
    choice: DataChoice, features: Path, tags_or_truth: Path | None, subset: str, on_note: OnNote
) -> FeatureSet:
    path = tags_or_truth or _beside(features, "gt.json", "--annotations")
    if choice.kind == "activitynet":
        return load_activitynet(path, features, subset, choice.modality, on_note=on_note)
    if subset not in ("train", "test"):
        raise DataError(f"subset is {subset!r}, THUMOS14 has train and test")
    return load_thumos(path, features, cast("Subset", subset), choice.modality, on_note=on_note)


def _beside(features: Path, name: str, option: str) -> Path:
    path = (features if features.is_dir() else features.parent) / name
    if not path.exists():
        raise DataError(f"there is no {path}: say where the labels are with {option} FILE")
    return path
