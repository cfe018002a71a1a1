"""`s2net bench`: one backbone in two runtimes, timed in one run."""

import os
import time

import numpy as np

from engine.backends import open_backend
from engine.bundle.model_bundle import ModelBundle, resolve_bundle
from engine.types import FloatArray
from training.benchmarks.runtimes_torch import TorchBackbone


def compare_runtimes(bundle: str, seconds: float, threads: int | None) -> str:
    """Time a snippet in OpenVINO f32 and in torch fp32, in turn, and compare the features.

    Args:
        bundle: The bundle whose backbone is timed, by name or folder.
        seconds: Length of each runtime's measurement.
        threads: CPU threads of both; None takes all.

    Returns:
        Lines for people.

    Raises:
        BundleError: The bundle is missing or damaged.
    """
    model = ModelBundle.load(resolve_bundle(bundle))
    n_threads = threads or os.cpu_count() or 1
    side, length = model.spec.geometry.crop_px, model.spec.grid.snippet_frames
    rng = np.random.default_rng(0)
    snippets = rng.integers(0, 256, (1, length, side, side, 3), np.uint8)
    ours = open_backend("openvino", model.backbone_path, precision="f32", threads=n_threads)
    theirs = TorchBackbone(model.backbone_path, n_threads)
    ours.warm_up()
    wanted: FloatArray = theirs.run(snippets)
    seen = ours.run({"snippets": snippets})["features"].astype(np.float32)
    ours_s: list[float] = []
    theirs_s: list[float] = []
    while sum(ours_s) + sum(theirs_s) < 2 * seconds or not ours_s:
        # They run in turn, so that other work on the machine slows both.
        started_s = time.perf_counter()
        ours.run({"snippets": snippets})
        between_s = time.perf_counter()
        theirs.run(snippets)
        ours_s.append(between_s - started_s)
        theirs_s.append(time.perf_counter() - between_s)
    ours.close()
    mine, other = float(np.median(ours_s)), float(np.median(theirs_s))
    return (
        f"{model.model_id}, {n_threads} threads, {len(ours_s)} pairs\n"
        f"  openvino f32  {mine * 1000:7.1f} ms a snippet\n"
        f"  torch fp32    {other * 1000:7.1f} ms a snippet\n"
        f"  ratio         {mine / other:7.3f}\n"
        f"  largest difference of a feature {np.abs(wanted - seen).max():.1e}"
    )
