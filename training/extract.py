"""Videos → feature files, through the engine's own decode, snippet and feature stages."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle
from engine.errors import BundleError, DeviceError, UnreadableVideoError
from engine.features import BackendFeatureExtractor, FeatureExtractor
from engine.process_pool import process_pool
from engine.snippets import SnippetSampler
from engine.spec import ModelSpec
from engine.video.frames import read_video
from engine.video.losses import Losses
from training.feature_files import VideoFeatures, claim_folder, manifest_of, write_features


def extract_video(
    path: Path,
    spec: ModelSpec,
    extractor: FeatureExtractor,
    on_progress: Callable[[int], None] = lambda _time_us: None,
    losses: Losses | None = None,
) -> VideoFeatures:
    """Extract the features of every whole snippet of a video.

    Args:
        path: The video.
        spec: The model; it says grid and picture size.
        extractor: The model's backbone.
        on_progress: Gets the stream time, in microseconds, up to which the video is read.
        losses: Gets what was left out of the video.

    Raises:
        UnreadableVideoError: The video cannot be read.
    """
    sampler = SnippetSampler(spec.grid, spec.window.max_gap_us)
    rows = []
    for batch in read_video(path, spec.geometry, spec.grid, losses=losses):
        rows.extend(extractor.extract(sampler.push(batch)))
        on_progress(int(batch.pts_us[-1]))
    features = np.array([row.vector for row in rows], np.float32)
    indices = np.array([row.index for row in rows], np.int64)
    return VideoFeatures(features.reshape(len(rows), spec.feature_dim), indices)


def extract_videos(
    paths: Sequence[Path],
    bundle: ModelBundle,
    extractor: FeatureExtractor,
    out: Path,
    on_progress: Callable[[Path, int], None] = lambda _path, _time_us: None,
) -> list[Path]:
    """Write a feature file for every video; those that are there already are left alone.

    Args:
        paths: The videos.
        bundle: The bundle that says grid and picture size.
        extractor: Its backbone.
        out: Folder of the feature files.
        on_progress: Gets the video and the stream time, in microseconds, up to which it is read.

    Returns:
        The feature files, in the order of the videos.

    Raises:
        BundleError: ``out`` holds features of another extractor, or cannot be written.
        UnreadableVideoError: A video cannot be read, after those before it have been written; or
            two videos share a name.
    """
    _prepare(paths, bundle, out)
    for path in paths:
        if not _target(path, out).exists():
            found = extract_video(path, bundle.spec, extractor, partial(on_progress, path))
            write_features(found, _target(path, out))
    return [_target(path, out) for path in paths]


def extract_in_parallel(
    paths: Sequence[Path],
    bundle_path: Path,
    out: Path,
    *,
    processes: int,
    precision: str = "f32",
    on_done: Callable[[Path], None] = lambda _path: None,
    on_losses: Callable[[Path, Losses], None] = lambda _path, _losses: None,
) -> dict[Path, str]:
    """Write feature files by several processes that share the CPUs, each with a video at a time.

    Args:
        paths: The videos.
        bundle_path: The bundle whose backbone makes the features.
        out: Folder of the feature files; finished ones are left alone.
        processes: Number of processes at work at once.
        precision: Precision of the backbone, as ``open_backend`` takes it.
        on_done: Gets each video that is finished, was finished before, or failed.
        on_losses: Gets what was left out of each video that is finished now.

    Returns:
        Videos that could not be read, and why; the others have their files.

    Raises:
        BundleError: ``out`` holds features of another extractor, or cannot be written.
        UnreadableVideoError: Two videos share a name.
        DeviceError: The runtime failed.
    """
    _prepare(paths, ModelBundle.load(bundle_path), out)
    todo = [path for path in paths if not _target(path, out).exists()]
    for path in paths:
        if path not in todo:
            on_done(path)
    failed: dict[Path, str] = {}
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    n_workers = min(processes, max(1, len(todo)))
    with process_pool(n_workers, _open_worker, bundle_path, precision, threads) as pool:
        jobs = {pool.submit(_work, path, _target(path, out)): path for path in todo}
        for job in as_completed(jobs):
            path = jobs[job]
            try:
                on_losses(path, job.result())
            except UnreadableVideoError as error:
                failed[path] = str(error)
            except BrokenProcessPool as error:
                _open_worker(bundle_path, precision, threads)  # if it fails here too, it says why
                raise DeviceError(
                    f"a process died while it read {path}: out of memory? try --processes 1"
                ) from error
            on_done(path)
    return failed


# What a worker process keeps from one video to the next.
_worker: dict[str, tuple[ModelSpec, FeatureExtractor]] = {}


def _open_worker(bundle_path: Path, precision: str, threads: int) -> None:
    bundle = ModelBundle.load(bundle_path)
    backend = open_backend("openvino", bundle.backbone_path, precision=precision, threads=threads)
    extractor = BackendFeatureExtractor(backend, bundle.spec.feature_dim)
    _worker["open"] = (bundle.spec, extractor)


def _work(path: Path, target: Path) -> Losses:
    (spec, extractor), losses = _worker["open"], Losses()
    write_features(extract_video(path, spec, extractor, losses=losses), target)
    return losses


def _target(path: Path, out: Path) -> Path:
    return out / f"{path.stem}.npz"


def _prepare(paths: Sequence[Path], bundle: ModelBundle, out: Path) -> None:
    by_stem: dict[str, Path] = {}
    for path in paths:
        twin = by_stem.setdefault(path.stem, path)
        if twin is not path:
            raise UnreadableVideoError(
                f"{twin} and {path} would share one feature file: rename one of them"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"--out {out}: cannot be made: {error.strerror}") from error
    claim_folder(out, manifest_of(bundle))
