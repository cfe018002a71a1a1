"""`s2netd engine build`: builds a bundle's plans before the daemon needs them."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from daemon.config import ModelConfig, load
from daemon.errors import ConfigError
from daemon.models.reading import ReadModel, backend_options, read_model
from engine.backends.names import check_name
from engine.backends.tensorrt.gpu_identity import NO_GPU, GpuIdentity
from engine.backends.tensorrt.library import TensorRt, TensorRtChoice, find_tensorrt
from engine.backends.tensorrt.plan_cache import Obtained, PlanCache, PlanKey
from engine.backends.tensorrt.plan_recipe import obtain_plan, recipe
from engine.bundle.model_bundle import ModelBundle
from engine.errors import DeviceError

MB = 1e6
_SPOKEN = ("internal_error", "error", "warning")


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """See `s2netd engine build --help`.

    Attributes:
        model: The model section of the daemon that will need the plans.
        runtime: Which TensorRT; see ``find_tensorrt``.
        verbose: Print everything that TensorRT says.
    """

    model: ModelConfig
    runtime: str = "auto"
    verbose: bool = False

    def __post_init__(self) -> None:
        check_name("--runtime", self.runtime, get_args(TensorRtChoice), ConfigError)


@dataclass(frozen=True, slots=True)
class BuiltNetwork:
    """A network and its plan.

    Attributes:
        name: ``backbone`` or ``localizer``.
        key: What the plan was built from and for.
        plan: The plan, and how it was obtained.
        path: The plan's file in the cache.
    """

    name: str
    key: PlanKey
    plan: Obtained
    path: Path

    def to_json(self) -> dict[str, Any]:
        """The row as JSON."""
        return {
            "network": self.name,
            "onnx_sha256": self.key.onnx_sha256,
            "precision": self.key.precision,
            "batch_sizes": [profile.batch_size for profile in self.key.profiles],
            "plan_bytes": len(self.plan.plan),
            "build_s": round(self.plan.build_s, 3),
            "from_cache": self.plan.is_from_cache,
            "file": str(self.path),
        }


def configured_model(path: Path) -> ModelConfig:
    """The model that a daemon with this configuration will open.

    Raises:
        ConfigError: The file is wrong, or a daemon with it would need no plans.
    """
    model = load(path).model
    if model.backend != "tensorrt":
        raise ConfigError(f"{path}: model.backend is {model.backend}; only tensorrt has plans")
    return model


def run_build(options: BuildOptions, console: Console, *, as_json: bool = False) -> None:
    """Build the plans that are not in the cache yet; print a table, or JSON, to ``console``.

    Args:
        options: What to build, and with which TensorRT.
        console: Shows the result; progress and TensorRT's warnings go to standard error.
        as_json: Print JSON instead of a table.

    Raises:
        ConfigError: There is no such label in the bundle.
        BundleError: The bundle is missing or damaged, or TensorRT cannot run a network.
        DeviceError: There is no TensorRT or no GPU where it needs one, a build failed, or a plan
            could not be kept.
    """
    read = read_model(options.model)
    trt = find_tensorrt(options.runtime)  # type: ignore[arg-type]
    errors = Console(stderr=True)
    with _gpu(trt, options.model.gpu) as (gpu, no_gpu), _progress(errors) as progress:
        cache = PlanCache(on_note=lambda note: errors.print(note, markup=False, soft_wrap=True))
        built = [
            _build(name, path, read, trt, gpu, options, cache, progress)
            for name, path in (
                ("backbone", read.bundle.backbone_path),
                ("localizer", read.bundle.localizer_path),
            )
        ]
    if as_json:
        console.print_json(json.dumps(_to_json(trt, gpu, cache, built)))
    else:
        console.print(_table(read.bundle, trt, gpu, built))
        console.print(_remark(trt, gpu, no_gpu, cache), markup=False, soft_wrap=True)
    unsaved = [network for network in built if network.plan.unsaved]
    if unsaved:
        raise DeviceError(f"{unsaved[0].name}: plan not kept: {unsaved[0].plan.unsaved}")


def _build(
    name: str,
    path: Path,
    read: ReadModel,
    trt: TensorRt,
    gpu: GpuIdentity,
    options: BuildOptions,
    cache: PlanCache,
    progress: Progress,
) -> BuiltNetwork:
    task = progress.add_task(name, total=None)

    def on_progress(phase: str, done: int, total: int) -> None:
        about = f"{name}: {phase.lower()}"
        progress.update(task, description=about, completed=done, total=total or None)

    def on_log(severity: str, message: str) -> None:
        if options.verbose or severity in _SPOKEN:
            text = f"{name}: {severity}: {message.strip()}"
            progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    # The daemon's own, or it would look for other plans.
    told = replace(backend_options(read, on_log), on_progress=on_progress)
    wanted = recipe(path, told)
    plan = obtain_plan(trt, gpu, cache, wanted, told)
    key = wanted.key(trt, gpu)
    about = f"{name}: {'from the cache' if plan.is_from_cache else 'built'}"
    progress.update(task, description=about, completed=1, total=1)
    return BuiltNetwork(name, key, plan, cache.folder / key.file_name)


@contextmanager
def _gpu(trt: TensorRt, index: int) -> Iterator[tuple[GpuIdentity, str]]:
    """Open the GPU to build for; without one, ``NO_GPU`` if that is enough, and why there is none.

    Raises:
        DeviceError: There is no GPU, and this TensorRT cannot build without one.
    """
    from engine.backends.tensorrt.cuda_pycuda import open_pycuda  # noqa: PLC0415 - heavy

    try:
        cuda = open_pycuda(index)
    except DeviceError as error:
        if not trt.builds_without_gpu:
            raise DeviceError(
                f"{trt} builds plans on the GPU that will run them, and there is none: {error}"
            ) from error
        yield NO_GPU, str(error)
        return
    with closing(cuda), cuda.current():
        yield cuda.identity, ""


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)


def _table(
    bundle: ModelBundle, trt: TensorRt, gpu: GpuIdentity, built: list[BuiltNetwork]
) -> Table:
    table = Table(title=f"{bundle.model_id}, {trt}, GPU {gpu}")
    table.add_column("network")
    table.add_column("precision")
    table.add_column("batches")
    for heading in ("MB", "build s"):
        table.add_column(heading, justify="right")
    table.add_column("from cache")
    for network in built:
        table.add_row(
            network.name,
            network.key.precision,
            batches(network.key),
            f"{len(network.plan.plan) / MB:.1f}",
            f"{network.plan.build_s:.1f}",
            "yes" if network.plan.is_from_cache else "no",
        )
    return table


def batches(key: PlanKey) -> str:
    """The batch sizes of a plan, e.g. ``1, 2, 4, 8``."""
    return ", ".join(str(profile.batch_size) for profile in key.profiles)


def _remark(trt: TensorRt, gpu: GpuIdentity, no_gpu: str, cache: PlanCache) -> str:
    if gpu == NO_GPU:
        return (
            f"This proves that {trt} reads both networks and compiles them in their precision; "
            f"nothing was run, and a machine with a GPU builds plans of its own. No GPU: {no_gpu}"
        )
    return f"kept in {cache.folder}; the daemon takes them from there"


def _to_json(
    trt: TensorRt, gpu: GpuIdentity, cache: PlanCache, built: list[BuiltNetwork]
) -> dict[str, Any]:
    return {
        "tensorrt": {"kind": trt.kind, "version": trt.version},
        "gpu": None
        if gpu == NO_GPU
        else {
            "name": gpu.name,
            "compute_capability": gpu.compute_capability,
            "driver": gpu.driver,
        },
        "folder": str(cache.folder),
        "networks": [network.to_json() for network in built],
    }
