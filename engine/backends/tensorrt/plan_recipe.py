"""From a network's file to its plan: what everybody who wants one does, so that keys agree."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engine.backends.base import Signature
from engine.backends.onnx_precision import FilePrecision, precision_in
from engine.backends.options import BackendOptions
from engine.backends.profiles import Profiles, profiles_for
from engine.backends.signatures import read_network, signature_of
from engine.backends.tensorrt.gpu_identity import GpuIdentity
from engine.backends.tensorrt.library import TensorRt
from engine.backends.tensorrt.plan_build import build_plan
from engine.backends.tensorrt.plan_cache import Obtained, PlanCache, PlanKey, TimingsKey
from engine.errors import BundleError


@dataclass(frozen=True, slots=True)
class PlanRecipe:
    """A network, and all that its plan is built for but TensorRT and the GPU.

    Attributes:
        onnx: The network's file.
        signature: What the network takes and gives.
        precision: What it computes in.
        profiles: Shapes of its calls, by rising batch size.
        network: Folder and name of the file, for listings.
    """

    onnx: bytes
    signature: Signature
    precision: FilePrecision
    profiles: Profiles
    network: str = ""

    def key(self, trt: TensorRt, gpu: GpuIdentity) -> PlanKey:
        """What the plan belongs to.

        Args:
            trt: The TensorRT that builds the plan, and runs it.
            gpu: The GPU that runs it.
        """
        digest = hashlib.sha256(self.onnx).hexdigest()
        return PlanKey(digest, str(trt), gpu, self.precision, self.profiles)


def recipe(model_path: Path, options: BackendOptions) -> PlanRecipe:
    """What to build for a network; its file is read here, and not again.

    Args:
        model_path: An ONNX file.
        options: Rows of a call, and the length of a window in snippets.

    Raises:
        BundleError: The file cannot be read, or does not fit what is asked for.
    """
    content, model = read_network(model_path)
    signature = signature_of(model)
    try:
        profiles = profiles_for(signature, batch_sizes=options.batch_sizes, length=options.length)
    except BundleError as error:
        raise BundleError(f"{model_path}: {error}") from error
    network = f"{model_path.absolute().parent.name} {model_path.stem}"
    return PlanRecipe(content, signature, precision_in(model), profiles, network)


def obtain_plan(
    trt: TensorRt,
    gpu: GpuIdentity,
    cache: PlanCache,
    wanted: PlanRecipe,
    options: BackendOptions,
) -> Obtained:
    """A network's plan, from the cache or built now, with the timings of earlier builds.

    Args:
        trt: The TensorRT that builds the plan, and runs it.
        gpu: The GPU that runs it; current, where this TensorRT needs one to build.
        cache: Where plans are kept.
        wanted: What for.
        options: Whom to tell what TensorRT says while it builds, and how far it is.

    Raises:
        BundleError: TensorRT cannot run the network.
        DeviceError: The build failed, or needs a GPU that is not there.
    """
    timings_key = TimingsKey(str(trt), gpu)

    def build() -> bytes:
        built = build_plan(
            trt,
            wanted.onnx,
            wanted.profiles,
            timing_cache=cache.timings(timings_key) if trt.has_timing_cache else None,
            on_log=options.on_log,
            on_progress=options.on_progress,
        )
        if built.timing_cache is not None:
            cache.keep_timings(timings_key, built.timing_cache)
        return built.plan

    return cache.obtain(
        wanted.key(trt, gpu),
        build,
        lambda: options.on_progress("waiting", 0, 0),
        network=wanted.network,
    )
