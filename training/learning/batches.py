"""Videos → bags → batches; the seed and the step's number alone decide which bags a step sees.

B, T: sequences and their positions; R: rows of a bag; C: classes; D: feature dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.camera_mean import CameraMean
from engine.errors import DataError
from engine.grid import Grid
from engine.types import BoolArray, FloatArray, Int64Array
from training.config import ClipBatches, VideoBatches
from training.networks.base import BagBatch
from training.records import FeatureSet, VideoRecord

# Beyond a gap of so many snippets, neighbours no longer matter to any network here.
MAX_GAP_SNIPPETS = 32


@dataclass(frozen=True, slots=True)
class Bag:
    """One tagged video, ready to be laid into a batch.

    Attributes:
        name: Name of the video.
        features: float32 (R, D), as the backbone gave them; not copied.
        camera_mean: float32 (D,), subtracted when the batch is made.
        places: int64 (R,), rising from 0: where each row lies on the grid.
        tags: float32 (C,), 1 where the video is tagged with the class.
        targets: float32 (R, C) pseudo labels in [0, 1], or None.
        points: bool (R, C), true where the class was clicked, or None.
    """

    name: str
    features: FloatArray
    camera_mean: FloatArray
    places: Int64Array
    tags: FloatArray
    targets: FloatArray | None = None
    points: BoolArray | None = None

    @property
    def length(self) -> int:
        """Number of grid positions from the first to the last row."""
        return int(self.places[-1]) + 1


def check_feature_set(feature_set: FeatureSet) -> None:
    """Refuse features that would spoil a training; the message names the video.

    Raises:
        DataError: No video is tagged, or a video has another width, no rows, indices that do not
            rise, a number that is not finite, or a tag that is no class.
    """
    tagged = [record for record in feature_set.records if record.tags is not None]
    if not any(record.tags for record in tagged):
        raise DataError(
            f"none of {len(feature_set.records)} videos has a tag: "
            "nothing can be learned; fill the tags in"
        )
    for record in feature_set.records:
        check_record(record, feature_set)


def check_record(record: VideoRecord, feature_set: FeatureSet) -> None:
    """Refuse one video's features, as ``check_feature_set`` does.

    Raises:
        DataError: They would spoil a training.
    """
    shape = record.features.shape
    if shape != (len(record.indices), feature_set.feature_dim):
        raise DataError(
            f"{record.name}: features are {shape}, wanted "
            f"{(len(record.indices), feature_set.feature_dim)}: extract them again"
        )
    if not len(record.indices):
        raise DataError(
            f"{record.name}: holds no whole snippet: leave it out, or record a longer clip"
        )
    if not np.isfinite(record.features).all():
        row = int(np.argwhere(~np.isfinite(record.features).all(axis=1))[0, 0])
        raise DataError(f"{record.name}: row {row} of its features is not finite: extract again")
    if (np.diff(record.indices) <= 0).any():
        raise DataError(f"{record.name}: its snippet indices do not rise: extract it again")
    n_classes = len(feature_set.class_names)
    if odd := [tag for tag in record.tags or () if not 0 <= tag < n_classes]:
        raise DataError(f"{record.name}: tag {odd[0]} is no class; there are {n_classes}")


def camera_means(records: Sequence[VideoRecord]) -> dict[str, FloatArray]:
    """Average the features of every camera that is named, and of all footage under ``""``.

    It is the daemon's own running average, which over so many snippets is their plain mean.
    Footage without tags counts too, because it shows the same surroundings.

    Returns:
        Camera → float32 (D,).
    """
    found = {"": _average(records)}
    for camera in sorted({record.camera for record in records} - {""}):
        found[camera] = _average([record for record in records if record.camera == camera])
    return found


def _average(records: Sequence[VideoRecord]) -> FloatArray:
    """Return the camera mean of all rows, float32 (D,)."""
    n_rows = sum(len(record.features) for record in records)
    zero = np.zeros(records[0].features.shape[1], np.float32)
    camera_mean = CameraMean(zero, 0, max(1, n_rows))
    for record in records:
        for row in record.features:
            camera_mean.update(row)
    return camera_mean.vector


def places_of(indices: Int64Array) -> Int64Array:
    """Turn snippet indices int64 (R,) into grid positions int64 (R,) from 0.

    Long gaps are cut to ``MAX_GAP_SNIPPETS`` missing snippets.
    """
    steps = np.minimum(np.diff(indices), MAX_GAP_SNIPPETS + 1)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(steps, dtype=np.int64)])


def bag_of(record: VideoRecord, camera_mean: FloatArray, n_classes: int) -> Bag:
    """Turn a video into a bag; a video whose tags are unknown gets no tag.

    Args:
        record: The video.
        camera_mean: float32 (D,).
        n_classes: C.
    """
    tags = np.zeros(n_classes, np.float32)
    tags[list(record.tags or ())] = 1
    return Bag(record.name, record.features, camera_mean, places_of(record.indices), tags)


def training_bags(
    feature_set: FeatureSet, camera_means: Mapping[str, FloatArray]
) -> tuple[Bag, ...]:
    """Turn every video whose tags are known into a bag, in the order of the data set.

    Args:
        feature_set: The videos.
        camera_means: Camera → float32 (D,); ``""`` for every camera that is not named.
    """
    n_classes, grid = len(feature_set.class_names), feature_set.grid
    return tuple(
        replace(
            bag_of(record, camera_means.get(record.camera, camera_means[""]), n_classes),
            points=clicked_rows(record, n_classes, grid),
        )
        for record in feature_set.records
        if record.tags is not None
    )


def clicked_rows(record: VideoRecord, n_classes: int, grid: Grid) -> BoolArray | None:
    """Return which rows were clicked, bool (R, C): those whose middles are nearest to a click.

    Returns:
        None if there is no click.
    """
    if not record.points:
        return None
    middles_us = record.indices * grid.stride_us + grid.snippet_us // 2
    clicked = np.zeros((len(middles_us), n_classes), bool)
    for point in record.points:
        clicked[np.abs(middles_us - point.time_us).argmin(), point.class_id] = True
    return clicked


class Sampler:
    """It makes the batch of any step number.

    Every epoch is a fresh permutation of the bags. Steps run on from one epoch into the next, so
    each bag is drawn once before any is drawn again. A permutation depends only on the seed and
    the epoch's number. A training that goes on from step 1 000 therefore draws what an
    uninterrupted one does.

    Args:
        bags: At least one bag.
        config: How bags become batches.
        seed: Seed of the order.
    """

    def __init__(
        self, bags: Sequence[Bag], config: ClipBatches | VideoBatches, seed: Sequence[int]
    ) -> None:
        self._bags = bags
        self._config = config
        self._seed = list(seed)
        self._owners = np.stack([bag.tags for bag in bags])
        self._paired = np.flatnonzero(self._owners.sum(axis=0) > 1)
        wanted = config.pairs if isinstance(config, VideoBatches) else 0
        self._n_pairs = min(wanted, len(self._paired))
        self._orders: dict[int, Int64Array] = {}

    def batch(self, step: int) -> BagBatch:
        """Make the batch of one step, counted from 0, on the CPU."""
        if isinstance(self._config, ClipBatches):
            return clip_batch([self._bags[i] for i in self.drawn(step)], self._config.clips)
        rng = np.random.default_rng([*self._seed, 1, step])
        chosen = [*self._pairs(rng), *self.drawn(step)]
        return video_batch([self._bags[i] for i in chosen], self._config.length, rng)

    def drawn(self, step: int) -> list[int]:
        """Return the numbers of the bags whose turn it is; pairs are drawn besides."""
        size, n_bags = self._config.bags - 2 * self._n_pairs, len(self._bags)
        turns = range(step * size, (step + 1) * size)
        return [int(self._order(turn // n_bags)[turn % n_bags]) for turn in turns]

    def _order(self, epoch: int) -> Int64Array:
        """Return the epoch's permutation of all N bags, int64 (N,)."""
        if epoch not in self._orders:
            rng = np.random.default_rng([*self._seed, 0, epoch])
            recent = {key: order for key, order in self._orders.items() if key == epoch - 1}
            self._orders = {**recent, epoch: rng.permutation(len(self._bags)).astype(np.int64)}
        return self._orders[epoch]

    def _pairs(self, rng: np.random.Generator) -> list[int]:
        """Draw two videos of each of a few classes. Source: W-TALC's sampler, methods.md 1.4."""
        return [
            int(bag)
            for class_index in rng.choice(self._paired, self._n_pairs, replace=False)
            for bag in rng.choice(np.flatnonzero(self._owners[:, class_index]), 2, replace=False)
        ]


def clip_batch(bags: Sequence[Bag], clips_a_sequence: int) -> BagBatch:
    """Lay bags end to end, ``clips_a_sequence`` in a sequence, padded to the longest sequence."""
    groups = [
        range(first, min(first + clips_a_sequence, len(bags)))
        for first in range(0, len(bags), clips_a_sequence)
    ]
    length = max(sum(bags[i].length for i in group) for group in groups)
    dim, n_classes = bags[0].features.shape[1], len(bags[0].tags)
    features = np.zeros((len(groups), length, dim), np.float32)
    owners = np.full((len(groups), length), -1, np.int64)
    targets = np.zeros((len(groups), length, n_classes), np.float32)
    points = np.zeros((len(groups), length, n_classes), bool)
    for row, group in enumerate(groups):
        start = 0
        for i in group:
            at = start + bags[i].places
            features[row, at] = bags[i].features - bags[i].camera_mean
            owners[row, at] = i
            labels, clicked = bags[i].targets, bags[i].points
            if labels is not None:
                targets[row, at] = labels
            if clicked is not None:
                points[row, at] = clicked
            start += bags[i].length
    return _as_batch(features, owners, bags, targets, points)


def video_batch(bags: Sequence[Bag], length: int, rng: np.random.Generator) -> BagBatch:
    """Make a sequence of each bag, its rows sampled to T = ``length``."""
    rows = [perturbed(len(bag.features), length, rng) for bag in bags]
    features = np.stack(  # (B, T, D)
        [bag.features[at] - bag.camera_mean for bag, at in zip(bags, rows, strict=True)]
    )
    owners = np.repeat(np.arange(len(bags), dtype=np.int64)[:, None], length, axis=1)
    targets = np.stack(
        [
            np.zeros((length, len(bag.tags)), np.float32)
            if bag.targets is None
            else bag.targets[at]
            for bag, at in zip(bags, rows, strict=True)
        ]
    )
    points = np.zeros(targets.shape, bool)
    for row, (bag, at) in enumerate(zip(bags, rows, strict=True)):
        for clicked, class_index in np.argwhere(bag.points if bag.points is not None else []):
            points[row, np.abs(at - clicked).argmin(), class_index] = True
    return _as_batch(features.astype(np.float32, copy=False), owners, bags, targets, points)


def perturbed(n_rows: int, length: int, rng: np.random.Generator) -> Int64Array:
    """Draw T = ``length`` row numbers that never fall, one from each of T bins of ``n_rows``.

    Bin i goes from ``floor(i n / T)`` to ``floor((i + 1) n / T)`` inclusive, the last one to
    ``n - 1``. Where there are fewer rows than bins, rows repeat.
    Source: CO2-Net's ``random_perturb``, methods.md section 1.4.

    Returns:
        int64 (T,).
    """
    edges = np.arange(length + 1) * n_rows // length
    first, last = edges[:-1], edges[1:].copy()
    last[-1] = n_rows - 1
    return np.asarray(rng.integers(first, np.maximum(first, last) + 1), np.int64)


def _as_batch(
    features: FloatArray,
    owners: Int64Array,
    bags: Sequence[Bag],
    targets: FloatArray,
    points: BoolArray,
) -> BagBatch:
    """Make a batch of features (B, T, D), bag numbers (B, T), and targets and points (B, T, C)."""
    has_targets = any(bag.targets is not None for bag in bags)
    return BagBatch(
        features=torch.from_numpy(features),
        valid=torch.from_numpy(owners >= 0),
        bags=torch.from_numpy(owners),
        tags=torch.from_numpy(np.stack([bag.tags for bag in bags])),
        targets=torch.from_numpy(targets) if has_targets else None,
        points=torch.from_numpy(points) if points.any() else None,
    )


def moved(batch: BagBatch, device: torch.device) -> BagBatch:
    """Copy a batch to another device."""
    return BagBatch(
        batch.features.to(device),
        batch.valid.to(device),
        batch.bags.to(device),
        batch.tags.to(device),
        None if batch.targets is None else batch.targets.to(device),
        None if batch.points is None else batch.points.to(device),
    )
