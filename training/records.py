"""What training and evaluation know of a video; every loader gives these records."""

from dataclasses import dataclass

from engine.grid import Grid
from engine.judging.truth import TruthSpan
from engine.types import FloatArray, Int64Array


@dataclass(frozen=True, slots=True)
class Point:
    """A click: somebody saw that an action was happening at this moment.

    Attributes:
        class_id: Index of its class.
        time_us: Stream time in microseconds.
    """

    class_id: int
    time_us: int


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video's features and what is known of it.

    Attributes:
        name: Name of the video, unique within its data set.
        camera: The camera whose mean its features share; "" if nobody said.
        features: float32 (T, D), as the backbone gave them.
        indices: int64 (T,), rising; row i is snippet ``indices[i]`` on the video's grid.
        duration_us: Length of the video in microseconds.
        tags: Indices of the classes that happen somewhere in it; () if somebody looked and none
            does, None if nobody looked.
        truth: Every action's interval; None if unknown.
        points: Clicks, in the order of their time. A class that was clicked was so once for each
            time that it happens; a tagged class without a click happens nobody says when.
    """

    name: str
    camera: str
    features: FloatArray
    indices: Int64Array
    duration_us: int
    tags: tuple[int, ...] | None
    truth: tuple[TruthSpan[int], ...] | None
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Videos whose features one extractor made, under one list of classes.

    Attributes:
        class_names: C names; class indices and tags are indices into them.
        records: The videos.
        grid: The grid that their snippets lie on.
        feature_dim: D of every record.
    """

    class_names: tuple[str, ...]
    records: tuple[VideoRecord, ...]
    grid: Grid
    feature_dim: int
