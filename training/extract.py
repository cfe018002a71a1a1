"""Videos → feature files, through the engine's own decode, snippet and feature stages.

A feature file is an npz with ``features`` float32 (T, D) and ``indices`` int64 (T,), the snippets'
places on the grid: rows are missing where footage was. Beside them, ``manifest.json`` names the
extractor, so that features of another one are never mixed in.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine.bundle import ModelBundle
from engine.errors import BundleError, UnreadableVideoError
from engine.features import FeatureExtractor
from engine.frames import read_video
from engine.snippets import SnippetSampler
from engine.spec import ModelSpec
from engine.types import FloatArray, Int64Array

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """One video's features: ``features`` float32 (T, D), ``indices`` int64 (T,)."""

    features: FloatArray
    indices: Int64Array


def extract_video(
    path: Path,
    spec: ModelSpec,
    extractor: FeatureExtractor,
    on_progress: Callable[[int], None] = lambda _time_us: None,
) -> VideoFeatures:
    """Features of every whole snippet of a video.

    Raises:
        UnreadableVideoError: It cannot be read.
    """
    sampler = SnippetSampler(spec.timeline, spec.window.max_gap_us)
    rows = []
    for batch in read_video(path, spec.geometry, spec.timeline):
        rows.extend(extractor.extract(sampler.push(batch)))
        on_progress(int(batch.pts_us[-1]))
    features = np.array([row.vector for row in rows], np.float32)
    indices = np.array([row.index for row in rows], np.int64)
    return VideoFeatures(features.reshape(len(rows), spec.feature_dim), indices)


def manifest_of(bundle: ModelBundle) -> dict[str, object]:
    """What makes two feature files comparable."""
    spec = bundle.spec
    return {
        "extractor_sha256": bundle.backbone_sha256,
        "fps": spec.timeline.fps,
        "snippet_frames": spec.timeline.snippet_frames,
        "stride_frames": spec.timeline.stride_frames,
        "resize_px": spec.geometry.resize_px,
        "crop_px": spec.geometry.crop_px,
        "fit": spec.geometry.fit,
        "modalities": ["rgb"],
        "feature_dim": spec.feature_dim,
    }


def extract_videos(
    paths: Sequence[Path],
    bundle: ModelBundle,
    extractor: FeatureExtractor,
    out: Path,
    on_progress: Callable[[Path, int], None] = lambda _path, _time_us: None,
) -> list[Path]:
    """Write a feature file for every video; those that are there already are left alone.

    Raises:
        BundleError: ``out`` holds features of another extractor, or cannot be written.
        UnreadableVideoError: A video cannot be read; those before it have been written. Or two
            videos share a name.
    """
    twins = [path for path in paths if sum(other.stem == path.stem for other in paths) > 1]
    if twins:
        raise UnreadableVideoError(
            f"{twins[0]} and {twins[1]} would share one feature file: rename one of them"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"--out {out}: cannot be made: {error.strerror}") from error
    _claim(out / MANIFEST, manifest_of(bundle))
    written = []
    for path in paths:
        target = out / f"{path.stem}.npz"
        if not target.exists():
            found = extract_video(path, bundle.spec, extractor, partial(on_progress, path))
            unfinished = target.with_suffix(".part")
            with unfinished.open("wb") as file:
                np.savez(file, features=found.features, indices=found.indices)
            unfinished.replace(target)
        written.append(target)
    return written


def _claim(path: Path, manifest: dict[str, object]) -> None:
    if not path.exists():
        path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        return
    try:
        seen = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: is damaged ({error}): choose another --out") from error
    for key, wanted in manifest.items():
        if seen.get(key) != wanted:
            raise BundleError(
                f"{path}: {key} is {seen.get(key)!r}, this bundle has {wanted!r}: "
                "features of two extractors do not mix; choose another --out"
            )
