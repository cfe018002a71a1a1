"""TensorRT on an NVIDIA GPU: a network's plan, from the cache or built now, as a backend."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.backends.base import Signature
from engine.backends.onnx_precision import precision_of
from engine.backends.options import BackendOptions, OnLog
from engine.backends.profiles import profiles_for
from engine.backends.signatures import read_signature
from engine.backends.tensorrt.backend import TensorRtBackend
from engine.backends.tensorrt.cuda import Cuda, Plan
from engine.backends.tensorrt.library import TensorRt, find_tensorrt
from engine.backends.tensorrt.plan_cache import Obtained, PlanCache
from engine.backends.tensorrt.plan_recipe import PlanRecipe, obtain_plan, recipe
from engine.errors import BundleError, DeviceError


@dataclass(frozen=True, slots=True)
class Toolkit:
    """What a plan is built and run with: the real thing, or a fake device's.

    Attributes:
        trt: Names itself in the keys of plans.
        open_cuda: Takes the GPU of an index.
        obtain: A plan from the cache, or built now, with the GPU current.
        load: Plan → plan on the GPU, which is current; None if it does not belong there.
    """

    trt: TensorRt
    open_cuda: Callable[[int], Cuda]
    obtain: Callable[[PlanCache, PlanRecipe, BackendOptions], Obtained]
    load: Callable[[bytes, OnLog], Plan | None]


def installed_toolkit() -> Toolkit:
    """pycuda, and whichever TensorRT is installed.

    Raises:
        DeviceError: TensorRT is missing; says what to install. pycuda is looked for when a GPU is
            opened.
    """
    from engine.backends.tensorrt.cuda_pycuda import open_pycuda  # noqa: PLC0415 - only with a GPU
    from engine.backends.tensorrt.plan import load_plan  # noqa: PLC0415

    trt = find_tensorrt()

    def obtain(cache: PlanCache, wanted: PlanRecipe, options: BackendOptions) -> Obtained:
        return obtain_plan(
            trt, cache, wanted, on_log=options.on_log, on_progress=options.on_progress
        )

    return Toolkit(trt, open_pycuda, obtain, lambda plan, on_log: load_plan(trt, plan, on_log))


def open_tensorrt(
    model_path: Path,
    *,
    precision: str,
    options: BackendOptions,
    toolkit: Toolkit | None = None,
) -> TensorRtBackend:
    """Open a network on the GPU; the calling thread then owns it.

    The first time for a network, GPU and TensorRT, its plan is built, which takes from seconds to
    minutes.

    Args:
        model_path: An ONNX file.
        precision: ``auto`` or ``f32``: as the file is; else what it must compute in.
        options: Sizes, GPU, cache, and whom to tell.
        toolkit: None: what is installed.

    Raises:
        BundleError: The file is no network that TensorRT can run, or computes in another
            precision.
        DeviceError: TensorRT, pycuda, the driver or the GPU is missing or failed, or lacks memory.
    """
    signature = _signature(model_path, precision, options)
    kit = toolkit or installed_toolkit()
    cuda = kit.open_cuda(options.gpu)
    try:
        wanted = recipe(
            kit.trt,
            cuda.identity,
            model_path,
            batch_sizes=options.batch_sizes,
            length=options.length,
        )
    except BaseException:
        cuda.close()
        raise
    return TensorRtBackend(
        cuda,
        lambda: _plan(kit, cuda, signature, wanted, options),
        signature,
        wanted.key.profiles,
        options,
        f"{kit.trt} {wanted.key.precision} {cuda.identity.name}",
    )


def _signature(model_path: Path, precision: str, options: BackendOptions) -> Signature:
    """The network's signature; what is wrong with the file is told before a GPU is looked for."""
    signature, _opset = read_signature(model_path)
    profiles_for(signature, batch_sizes=options.batch_sizes, length=options.length)
    if precision not in ("auto", "f32"):
        held = precision_of(model_path.read_bytes())
        if precision != held:
            raise BundleError(
                f"{model_path} computes in {held}, but precision is {precision}: TensorRT runs a "
                "network as it was exported; set precision to auto, or export it again"
            )
    return signature


def _plan(
    kit: Toolkit, cuda: Cuda, signature: Signature, wanted: PlanRecipe, options: BackendOptions
) -> Plan:
    """From the cache, or built; one from the cache that does not load is built once more."""
    cache = PlanCache(options.cache_dir, lambda note: options.on_log("warning", note))
    for _attempt in range(2):
        obtained = kit.obtain(cache, wanted, options)
        plan = kit.load(obtained.plan, options.on_log)
        if plan is not None and _fits(plan, signature, wanted):
            return plan
        if plan is not None:
            plan.free()
        cache.invalidate(wanted.key, f"{kit.trt} does not load it")
        if not obtained.is_from_cache:
            break
    raise DeviceError(
        f"{kit.trt} does not load its own plan on {cuda.identity}: it may not support this GPU; "
        "use another TensorRT, or backend openvino"
    )


def _fits(plan: Plan, signature: Signature, wanted: PlanRecipe) -> bool:
    """Is the plan one of this network?"""
    inputs = {(spec.name, len(spec.shape), spec.dtype, True) for spec in signature.inputs}
    outputs = {(spec.name, len(spec.shape), spec.dtype, False) for spec in signature.outputs}
    seen = {(t.name, len(t.shape), t.dtype, t.is_input) for t in plan.tensors}
    return seen == inputs | outputs and plan.n_profiles == len(wanted.key.profiles)
