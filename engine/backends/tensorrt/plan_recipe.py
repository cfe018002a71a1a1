"""From a network's file to its plan: what everybody who wants one does, so that keys agree."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engine.backends.onnx_precision import precision_of
from engine.backends.profiles import LengthRange, profiles_for
from engine.backends.signatures import read_signature
from engine.backends.tensorrt.gpu_identity import GpuIdentity
from engine.backends.tensorrt.library import TensorRt
from engine.backends.tensorrt.log import OnLog
from engine.backends.tensorrt.plan_build import OnProgress, build_plan
from engine.backends.tensorrt.plan_cache import Obtained, PlanCache, PlanKey, TimingsKey
from engine.errors import BundleError


@dataclass(frozen=True, slots=True)
class PlanRecipe:
    """A network, and all that its plan is built for.

    Attributes:
        onnx: The network's file.
        key: What the plan belongs to.
        network: Folder and name of the file, for listings.
    """

    onnx: bytes
    key: PlanKey
    network: str = ""


def recipe(
    trt: TensorRt,
    gpu: GpuIdentity,
    model_path: Path,
    *,
    batch_sizes: tuple[int, ...],
    length: LengthRange | None,
) -> PlanRecipe:
    """What to build for a network.

    Args:
        trt: The TensorRT that builds the plan, and runs it.
        gpu: The GPU that runs it.
        model_path: An ONNX file.
        batch_sizes: Rows of a call, rising, at least 1.
        length: (min, opt, max) length of a window in snippets; None for a network without one.

    Raises:
        BundleError: The file cannot be read, or does not fit what is asked for.
    """
    signature, _opset = read_signature(model_path)
    try:
        onnx = model_path.read_bytes()
        profiles = profiles_for(signature, batch_sizes=batch_sizes, length=length)
    except OSError as error:
        raise BundleError(f"{model_path} cannot be read: {error.strerror}") from error
    except BundleError as error:
        raise BundleError(f"{model_path}: {error}") from error
    digest = hashlib.sha256(onnx).hexdigest()
    key = PlanKey(digest, str(trt), gpu, precision_of(onnx), profiles)
    return PlanRecipe(onnx, key, f"{model_path.absolute().parent.name} {model_path.stem}")


def obtain_plan(
    trt: TensorRt,
    cache: PlanCache,
    wanted: PlanRecipe,
    *,
    on_log: OnLog = lambda _severity, _message: None,
    on_progress: OnProgress = lambda _phase, _done, _total: None,
) -> Obtained:
    """A network's plan, from the cache or built now, with the timings of earlier builds.

    Args:
        trt: The one the recipe was made with.
        cache: Where plans are kept.
        wanted: The network, and what its plan is for.
        on_log: Told what TensorRT says while it builds.
        on_progress: Told how far it is.

    Raises:
        BundleError: TensorRT cannot run the network.
        DeviceError: The build failed, or needs a GPU that is not there.
    """
    timings_key = TimingsKey(wanted.key.tensorrt, wanted.key.gpu)

    def build() -> bytes:
        built = build_plan(
            trt,
            wanted.onnx,
            wanted.key.profiles,
            timing_cache=cache.timings(timings_key) if trt.has_timing_cache else None,
            on_log=on_log,
            on_progress=on_progress,
        )
        if built.timing_cache is not None:
            cache.keep_timings(timings_key, built.timing_cache)
        return built.plan

    return cache.obtain(
        wanted.key, build, lambda: on_progress("waiting", 0, 0), network=wanted.network
    )
