"""TensorRT on an NVIDIA GPU: recipe → plan, from the cache or built now → on the GPU → backend."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engine.backends.options import BackendOptions, OnLog
from engine.backends.tensorrt.backend import TensorRtBackend, using
from engine.backends.tensorrt.cuda import Cuda, Plan, kept, suppressed
from engine.backends.tensorrt.gpu_identity import GpuIdentity
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
        obtain: A plan from the cache, or built now, with the GPU current; see ``obtain_plan``.
        load: Plan → plan on the GPU, which is current; None if it does not belong there.
    """

    trt: TensorRt
    open_cuda: Callable[[int], Cuda]
    obtain: Callable[[TensorRt, GpuIdentity, PlanCache, PlanRecipe, BackendOptions], Obtained]
    load: Callable[[TensorRt, bytes, OnLog], Plan | None]


def installed_toolkit() -> Toolkit:
    """pycuda, and whichever TensorRT is installed.

    Raises:
        DeviceError: TensorRT is missing; says what to install. pycuda is looked for when a GPU is
            opened.
    """
    from engine.backends.tensorrt.cuda_pycuda import open_pycuda  # noqa: PLC0415 - only with a GPU
    from engine.backends.tensorrt.plan import load_plan  # noqa: PLC0415

    return Toolkit(find_tensorrt(), open_pycuda, obtain_plan, load_plan)


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
    # What is wrong with the file is told before anything is said of GPUs.
    wanted = recipe(model_path, options)
    if precision not in ("auto", "f32", wanted.precision):
        raise BundleError(
            f"{model_path} computes in {wanted.precision}, but precision is {precision}: TensorRT "
            "runs a network as it was exported; set precision to auto, or export it again"
        )
    return open_recipe(wanted, options, toolkit or installed_toolkit())


def open_recipe(wanted: PlanRecipe, options: BackendOptions, kit: Toolkit) -> TensorRtBackend:
    """``open_tensorrt`` for a network that was read; the calling thread then owns it.

    Raises:
        BundleError: TensorRT cannot run the network.
        DeviceError: The driver or the GPU is missing or failed, or lacks memory.
    """
    with ExitStack() as opened:
        cuda = kit.open_cuda(options.gpu)
        opened.callback(suppressed, cuda.close)
        description = f"{kit.trt} {wanted.precision} {cuda.identity.name}"
        with using(cuda, description, options):
            plan = kept(opened, _load(kit, cuda.identity, wanted, options))
        opened.pop_all()  # from here on the backend's, even if it does not come to be
    return TensorRtBackend(cuda, plan, wanted.signature, wanted.profiles, options, description)


def _load(kit: Toolkit, gpu: GpuIdentity, wanted: PlanRecipe, options: BackendOptions) -> Plan:
    """The plan, on the GPU; one from the cache that does not load is built once more."""
    cache = PlanCache(options.cache_dir, lambda note: options.on_log("warning", note))
    for _attempt in range(2):
        obtained = kit.obtain(kit.trt, gpu, cache, wanted, options)
        plan = kit.load(kit.trt, obtained.plan, options.on_log)
        if plan is not None and _fits(plan, wanted):
            return plan
        if plan is not None:
            plan.free()
        cache.invalidate(wanted.key(kit.trt, gpu), f"{kit.trt} does not load it")
        if not obtained.is_from_cache:
            break
    raise DeviceError(
        f"{kit.trt} does not load its own plan on {gpu}: it may not support this GPU; "
        "use another TensorRT, or backend openvino"
    )


def _fits(plan: Plan, wanted: PlanRecipe) -> bool:
    """Is the plan one of this network?"""
    inputs = {(s.name, len(s.shape), s.dtype, True) for s in wanted.signature.inputs}
    outputs = {(s.name, len(s.shape), s.dtype, False) for s in wanted.signature.outputs}
    seen = {(t.name, len(t.shape), t.dtype, t.is_input) for t in plan.tensors}
    return seen == inputs | outputs and plan.n_profiles == len(wanted.profiles)
