"""A scenes folder, or a published one, with its features → what to train on and to score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import DataError
from training.data import DataChoice, evaluation_set
from training.loaders.annotations import OnNote, no_note, read_annotations
from training.loaders.clips import load_annotated, load_clips
from training.loaders.features import read_manifest
from training.records import FeatureSet, VideoRecord

ANNOTATIONS, TAGS, VIDEOS = "annotations.json", "tags.csv", "videos"
GT = "gt.json"  # the annotations of published features
SUBSETS = ("validation", "testing", "unseen")


@dataclass(frozen=True, slots=True)
class Scenes:
    """One data draw: a folder that ``s2net render-scenes`` wrote, and its features.

    Attributes:
        name: Name of the draw.
        tagged: What may be trained on; no interval is in it.
        annotated: The same videos with their intervals, for the supervised baseline.
        subsets: Subset → records with intervals, to score on.
        manifest: The features' own manifest; published features have none.
        videos: Folder of the video files; published features have none.
    """

    name: str
    tagged: FeatureSet
    annotated: FeatureSet
    subsets: Mapping[str, tuple[VideoRecord, ...]]
    manifest: Mapping[str, object] | None
    videos: Path | None


def load_scenes(
    features: Path, scenes_dir: Path, subsets: Sequence[str] = SUBSETS, name: str = ""
) -> Scenes:
    """Read a scenes folder, and what ``s2net extract`` made of its videos.

    Args:
        features: Folder of feature files.
        scenes_dir: Folder with ``annotations.json``, ``tags.csv`` and ``videos``.
        subsets: The subsets to score on.
        name: Name of the draw; if empty, the folder's.

    Raises:
        DataError: A file is missing or damaged, or a subset is not there.
    """
    annotations = scenes_dir / ANNOTATIONS
    classes = read_annotations(annotations).class_names
    clips = load_clips(features, scenes_dir / TAGS, classes=classes)
    # The videos that are scored lie in the same folder, and not even their features may reach a
    # camera mean.
    rows = tuple(record for record in clips.records if record.tags is not None)
    return Scenes(
        name=name or scenes_dir.name,
        tagged=replace(clips, records=rows),
        annotated=load_annotated(features, annotations, "training"),
        subsets={
            subset: load_annotated(features, annotations, subset).records for subset in subsets
        },
        manifest=read_manifest(features),
        videos=scenes_dir / VIDEOS,
    )


def load_draw(
    features: Path,
    folder: Path,
    subsets: Sequence[str],
    data: DataChoice,
    on_note: OnNote = no_note,
) -> Scenes:
    """Read a scenes folder, or a published one if it has a ``gt.json``.

    Args:
        features: Folder of feature files.
        folder: The folder.
        subsets: The subsets to score on; a published one has ``testing`` alone.
        data: How the configuration reads a published one; where it is for clips, THUMOS14's
            layout is read, which ``s2net plant`` writes.
        on_note: Gets a line for everything that was left out.

    Raises:
        DataError: As `load_scenes`, no video has features, or a published one is not asked for
            ``testing``, which it would be scored on all the same.
    """
    if not (folder / GT).exists():
        return load_scenes(features, folder, subsets)
    if "testing" not in subsets:
        raise DataError(
            f"--subsets is {','.join(subsets)}, but {folder} with its {GT} has testing alone:"
            " ask for that, and choose nothing by it"
        )
    layout = DataChoice("thumos14", data.modality, "train", "test")
    reading = layout if data.kind == "clips" else data
    return _load_published(features, folder / GT, reading, on_note)


def _load_published(features: Path, gt: Path, data: DataChoice, on_note: OnNote) -> Scenes:
    """Read a published layout; nothing may be chosen on its one subset to score."""
    annotated = evaluation_set(data, features, gt, data.train, on_note)
    tagged = tuple(replace(record, truth=None) for record in annotated.records)
    return Scenes(
        name=gt.parent.name,
        tagged=replace(annotated, records=tagged),
        annotated=annotated,
        subsets={"testing": evaluation_set(data, features, gt, None, on_note).records},
        manifest=None,
        videos=None,
    )
