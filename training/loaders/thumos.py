"""THUMOS14: the public annotation arrays or gt.json, and the published I3D features.

`ThumosOptions` says what to do about its known defects. ``extracted_fps.npy`` says 10, which is
wrong for these features (sujoyp/wtalc-pytorch, issue 9): they have 25 frames a second and 16
frames a snippet.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from engine.errors import DataError
from engine.files.npz import NPZ_DAMAGE
from engine.judging.truth import TruthSpan
from engine.types import FloatArray, Span
from training.loaders.annotations import (
    AnnotatedVideo,
    Annotations,
    OnNote,
    PastEnd,
    cut_to_length,
    in_order,
    no_note,
    read_annotations,
    seconds_to_us,
)
from training.loaders.files import read_text, suggestion
from training.loaders.objects import is_object_array, read_objects
from training.loaders.published import (
    Modality,
    Rows,
    assemble,
    find_features,
    select,
)
from training.records import FeatureSet

Subset = Literal["train", "test"]
_SUBSETS = {"train": "train", "training": "train", "validation": "train", "test": "test"}
_FOLDERS: dict[str, tuple[str, ...]] = {
    "train": ("train", "validation"),
    "test": ("test",),
    "": ("train", "validation", "test"),
}


@dataclass(frozen=True, slots=True)
class ThumosOptions:
    """What to do about the data set's defects.

    Attributes:
        past_end: What to do with 30 intervals of 5 videos that reach past the length given for
            their video. Published figures count them as missed, which is ``keep``.
        cliff_diving_is_diving: The annotation lists every CliffDiving again as Diving. True, as
            published, keeps both. False removes those Diving intervals, and the tag where
            nothing else of the video is Diving.

    Intervals that nobody could judge are left to the evaluation, see `read_ambiguous`.
    """

    past_end: PastEnd = "clip"
    cliff_diving_is_diving: bool = True


def load_thumos(
    annotations: Path,
    features: Path,
    subset: Subset | None,
    modality: Modality = "rgb",
    options: ThumosOptions = ThumosOptions(),
    on_note: OnNote = no_note,
) -> FeatureSet:
    """Read the videos of one subset, with features and truth.

    Args:
        annotations: The folder of annotation arrays (``videoname.npy``, ...), or gt.json.
        features: Folder of per-video files, see `training.loaders.published`; or the object
            array ``Thumos14reduced-I3D-JOINTFeatures.npy``, whose rows follow the arrays.
        subset: ``train`` is what THUMOS14 calls validation; None for both.
        modality: rgb and flow are 1024 wide, joint is both side by side, RGB first.
        options: What to do about the data set's defects.
        on_note: Gets one line on what was cut, and one on which videos have no features.

    Raises:
        DataError: A file cannot be used, or no video has features.
    """
    read = read_thumos(annotations, on_note)
    if not options.cliff_diving_is_diving:
        read = without_cliff_diving_as_diving(read)
    videos = read.of(subset, annotations)
    videos = cut_to_length(videos, options.past_end, annotations, on_note)
    if features.is_file():
        readers = _package(annotations, features, modality)
    else:
        names = [video.name for video in videos]
        readers = find_features(features, names, _FOLDERS[subset or ""], modality)
    return assemble(videos, readers, read.class_names, modality, features, on_note)


def read_thumos(path: Path, on_note: OnNote = no_note) -> Annotations:
    """Read the annotations as published; the subsets are called train and test.

    Args:
        path: Folder of annotation arrays, or gt.json.
        on_note: Gets a line on what was left out.

    Raises:
        DataError: They cannot be used.
    """
    if path.is_dir():
        return _read_arrays(path)
    read = read_annotations(path, empty_intervals="drop", on_note=on_note)
    videos = []
    for video in read.videos:
        if video.subset not in _SUBSETS:
            raise DataError(
                f"{path}, {video.name}: subset is {video.subset!r}: "
                f"{suggestion(video.subset, _SUBSETS)}"
            )
        videos.append(replace(video, subset=_SUBSETS[video.subset]))
    return Annotations(read.class_names, tuple(videos))


def read_ambiguous(path: Path) -> tuple[tuple[str, Span], ...]:
    """Read the intervals that nobody could judge; rows are ``video  start end`` in seconds.

    Returns:
        (video, interval) pairs.

    Raises:
        DataError: A row is something else.
    """
    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split()  # two spaces follow the name
        if not fields:
            continue
        try:
            name, start_s, end_s = fields
            span = Span(seconds_to_us(float(start_s)), seconds_to_us(float(end_s)))
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"{path}, line {number}: {line!r:.80} is not 'video start end' ({error}): "
                "download it again"
            ) from error
        found.append((name, span))
    return tuple(found)


def without_cliff_diving_as_diving(read: Annotations) -> Annotations:
    """Remove Diving intervals that only repeat a CliffDiving one, and tags that rest on them."""
    if not {"CliffDiving", "Diving"} <= set(read.class_names):
        return read
    cliff, diving = (read.class_names.index(name) for name in ("CliffDiving", "Diving"))
    videos = []
    for video in read.videos:
        repeated = {truth.span for truth in video.truth or () if truth.class_id == cliff}
        kept = tuple(
            truth
            for truth in video.truth or ()
            if truth.class_id != diving or truth.span not in repeated
        )
        tags = video.tags
        if repeated and tags is not None and diving not in {truth.class_id for truth in kept}:
            tags = tuple(tag for tag in tags if tag != diving)
        videos.append(replace(video, truth=kept, tags=tags))
    return Annotations(read.class_names, tuple(videos))


def _read_arrays(folder: Path) -> Annotations:
    names, subsets, classes = (
        _strings(folder / f"{key}.npy") for key in ("videoname", "subset", "classlist")
    )
    durations = _plain_array(folder / "duration.npy").reshape(-1)
    segments, labels, tags = (
        read_objects(folder / f"{key}.npy") for key in ("segments", "labels", "labels_all")
    )
    columns = (names, subsets, durations, segments, labels, tags)
    if len({len(column) for column in columns}) != 1:
        raise DataError(
            f"{folder}: the arrays have {[len(column) for column in columns]} entries, wanted one "
            "a video in each: they belong to different versions"
        )
    videos = [
        _video(folder, tuple(classes), *row)
        for row in zip(names, subsets, durations, segments, labels, tags, strict=True)
    ]
    return Annotations(tuple(classes), tuple(videos))


def _video(
    folder: Path,
    classes: tuple[str, ...],
    name: str,
    subset: str,
    duration_s: float,
    segments: object,
    labels: object,
    tags: object,
) -> AnnotatedVideo:
    try:
        spans = [
            TruthSpan(classes.index(label), Span(seconds_to_us(start_s), seconds_to_us(end_s)))
            for (start_s, end_s), label in zip(segments, labels, strict=True)  # type: ignore[call-overload]
        ]
        return AnnotatedVideo(
            name,
            _SUBSETS[subset],
            "",
            seconds_to_us(float(duration_s)),
            # The tags are an array of their own, which lacks labels that 28 videos have.
            tuple(sorted({classes.index(tag) for tag in tags})),  # type: ignore[attr-defined]
            in_order(spans),
        )
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise DataError(
            f"{folder}: the arrays' entry of {name} cannot be used ({error!s:.80}): download the "
            "annotation package again"
        ) from error


def _strings(path: Path) -> list[str]:
    """Read the texts of an array, whatever its shape (...), as a flat list."""
    if is_object_array(path):
        return [str(entry) for entry in read_objects(path)]
    array = _plain_array(path)
    if array.dtype.kind not in "SU":
        raise DataError(f"{path} holds {array.dtype}, wanted text: download it again")
    return [str(entry) for entry in array.astype(str).reshape(-1)]


def _plain_array(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    """Read an array of any shape (...) that holds no Python objects."""
    try:
        array = np.load(path, allow_pickle=False)
    except NPZ_DAMAGE as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read ({reason:.80}): download the annotation package again"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive, wanted one array: download it again")
    return array


def _package(annotations: Path, features: Path, modality: Modality) -> dict[str, Rows]:
    if not annotations.is_dir():
        raise DataError(
            f"{features} has no names, its rows follow the annotation arrays: give their folder "
            f"instead of {annotations}"
        )
    names = _strings(annotations / "videoname.npy")
    rows = read_objects(features)
    if len(rows) != len(names):
        raise DataError(
            f"{features} holds {len(rows)} videos, {annotations} lists {len(names)}: they belong "
            "to different versions"
        )
    return {
        name: _package_reader(f"{features}, {name}", entry, modality)
        for name, entry in zip(names, rows, strict=True)
    }


def _package_reader(what: str, entry: object, modality: Modality) -> Rows:
    def rows() -> FloatArray:
        """Check and cut the features when they are wanted: float32 (T, D)."""
        if not isinstance(entry, np.ndarray):
            raise DataError(f"{what}: is a {type(entry).__name__}, wanted an array of floats")
        return select(entry, modality, what)

    return rows
