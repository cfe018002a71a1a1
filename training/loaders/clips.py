"""One's own videos: feature files and what a person wrote about them → a `FeatureSet`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.errors import DataError
from engine.grid import US_PER_S, Grid
from training.loaders.annotations import (
    AnnotatedVideo,
    OnNote,
    PastEnd,
    cut_to_length,
    no_note,
    read_annotations,
    seconds_to_us,
    unique_classes,
)
from training.loaders.features import FeatureFolder, load_features
from training.loaders.files import few, suggestion
from training.loaders.tags import Tagged, read_tags
from training.records import FeatureSet, Point, VideoRecord


def load_clips(
    features_dir: Path,
    tags_path: Path,
    classes: Sequence[str] | None = None,
    subset: str | None = None,
) -> FeatureSet:
    """Read tagged videos, and those without a row as untagged ones, which are never trained on.

    Args:
        features_dir: The folder that ``s2net extract`` wrote.
        tags_path: ``tags.csv`` or a YAML manifest, see `training.loaders.tags`.
        classes: The class list; None takes all tags of the file, sorted.
        subset: If given, only rows of this subset count, and no video without a row.

    Returns:
        The videos. Their length is the end of their last snippet, because nobody gave another.

    Raises:
        DataError: A row names a video without features or a tag that is no class; or a file
            cannot be used.
    """
    tagged = read_tags(tags_path)
    names = _classes_of(tagged, tags_path, classes)
    rows = _rows_of(tagged, tags_path, subset)
    folder = load_features(features_dir)
    folder.require(list(rows), tags_path)
    stems = list(rows) if subset is not None else list(folder)
    records = tuple(_record(folder, stem, rows.get(stem), names) for stem in stems)
    return FeatureSet(names, records, folder.grid, folder.feature_dim)


def load_unlabelled(features_dir: Path) -> FeatureSet:
    """Read every feature file of a folder, with nothing known of what happens in the video.

    Raises:
        DataError: A file cannot be used.
    """
    folder = load_features(features_dir)
    records = tuple(_record(folder, stem, None, ()) for stem in folder)
    return FeatureSet((), records, folder.grid, folder.feature_dim)


def load_quiet(features_dir: Path) -> FeatureSet:
    """Read footage in which nothing happens.

    An ``annotations.json`` or a ``tags.csv`` among the features says which camera each video is
    of.

    Raises:
        DataError: A file cannot be used, or says that something happens in one of the videos.
    """
    known = load_unlabelled(features_dir)
    cameras: dict[str, str] = {}
    acting: list[str] = []
    if (listed := features_dir / "annotations.json").exists():
        videos = read_annotations(listed).videos
        cameras = {video.name: video.camera for video in videos}
        acting = [video.name for video in videos if video.tags]
    elif (listed := features_dir / "tags.csv").exists():
        rows = read_tags(listed)
        cameras = {stem: row.camera for stem, row in rows.items()}
        acting = [stem for stem, row in rows.items() if row.tags]
    there = {record.name for record in known.records}
    if wrong := [name for name in acting if name in there]:
        raise DataError(
            f"{listed} says that something happens in {few(wrong)}: quiet footage is footage in "
            "which nothing does; leave these features out"
        )
    records = tuple(
        replace(record, camera=cameras.get(record.name, ""), tags=()) for record in known.records
    )
    return replace(known, records=records)


def load_annotated(
    features_dir: Path,
    annotations_path: Path,
    subset: str | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    *,
    past_end: PastEnd = "clip",
    on_note: OnNote = no_note,
) -> FeatureSet:
    """Read videos with every action's times, and the tags that follow from them.

    Args:
        features_dir: The folder that ``s2net extract`` wrote.
        annotations_path: The annotations, see `training.loaders.annotations`.
        subset: One subset or several; None for every video listed.
        classes: The class list; None takes the file's own.
        past_end: What to do with intervals that reach past their video.
        on_note: Gets one line on what was cut or left out.

    Raises:
        DataError: There is no such subset, a listed video has no features, or a file cannot be
            used.
    """
    annotations = read_annotations(annotations_path, classes)
    folder = load_features(features_dir)
    videos = annotations.of(subset, annotations_path)
    folder.require([video.name for video in videos], annotations_path)
    cut = cut_to_length(videos, past_end, annotations_path, on_note)
    records = tuple(_annotated_record(folder, video) for video in cut)
    return FeatureSet(annotations.class_names, records, folder.grid, folder.feature_dim)


def _classes_of(
    tagged: dict[str, Tagged], path: Path, classes: Sequence[str] | None
) -> tuple[str, ...]:
    if classes is None:
        found = sorted({tag for row in tagged.values() for tag in row.tags})
        if not found:
            raise DataError(f"{path} tags no video with anything: there is nothing to learn")
        return tuple(found)
    names = unique_classes(classes)
    for stem, row in tagged.items():
        for tag in row.tags:
            if tag not in names:
                raise DataError(
                    f"{path}, {stem}: tag {tag!r} is no class of the list: "
                    f"{suggestion(tag, names)}"
                )
    return names


def _rows_of(tagged: dict[str, Tagged], path: Path, subset: str | None) -> dict[str, Tagged]:
    if subset is None:
        return tagged
    rows = {stem: row for stem, row in tagged.items() if row.subset == subset}
    if not rows:
        known = {row.subset for row in tagged.values() if row.subset}
        hint = suggestion(subset, sorted(known)) if known else "add a column 'subset'"
        raise DataError(f"{path} has no subset {subset!r}: {hint}")
    return rows


def _record(
    folder: FeatureFolder, stem: str, row: Tagged | None, names: tuple[str, ...]
) -> VideoRecord:
    found = folder[stem]
    end_us = folder.grid.snippet_end_us(int(found.indices[-1]))
    return VideoRecord(
        name=stem,
        camera="" if row is None else row.camera,
        features=found.features,
        indices=found.indices,
        duration_us=end_us,
        tags=None if row is None else tuple(sorted(names.index(tag) for tag in row.tags)),
        truth=None,
        points=() if row is None else _points(stem, row, names, end_us, folder.grid),
    )


def _points(
    stem: str, row: Tagged, names: tuple[str, ...], end_us: int, grid: Grid
) -> tuple[Point, ...]:
    """Turn a row's clicks into points; ``end_us`` is where the video's last snippet ends."""
    # What follows the last snippet is shorter than one, and may be clicked too.
    most_us = end_us + grid.snippet_us
    for name, seconds in row.clicks:
        if seconds * US_PER_S > most_us:
            raise DataError(
                f"{stem}: {name} was clicked at {seconds:g} s, but the video's last snippet ends "
                f"at {end_us / US_PER_S:g} s: count seconds from the video's beginning"
            )
    return tuple(Point(names.index(name), seconds_to_us(at)) for name, at in row.clicks)


def _annotated_record(folder: FeatureFolder, video: AnnotatedVideo) -> VideoRecord:
    found = folder[video.name]
    end_us = folder.grid.snippet_end_us(int(found.indices[-1]))
    return VideoRecord(
        name=video.name,
        camera=video.camera,
        features=found.features,
        indices=found.indices,
        duration_us=end_us if video.duration_us is None else video.duration_us,
        tags=video.tags,
        truth=video.truth,
    )
