"""Reads a bundle and opens its networks, as run, localize, demo and bench all do first."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from daemon.config import EconomyConfig, ModelConfig
from daemon.errors import ConfigError
from daemon.models.slot import OpenModel
from engine.backends import open_backend
from engine.backends.base import EngineBackend
from engine.backends.names import did_you_mean
from engine.backends.options import BackendOptions, OnLog, OnProgress
from engine.bundle.forms import in_precision
from engine.bundle.model_bundle import ModelBundle, resolve_bundle
from engine.bundle.reference import reference_of
from engine.cas import BackendLocalizer, Localizer
from engine.errors import BundleError
from engine.features import BackendFeatureExtractor
from engine.grid import US_PER_S, Grid
from engine.spec import EconomySpec, ModelSpec, Rung

_NAMED = 10  # of labels that are unknown


@dataclass(frozen=True, slots=True)
class ReadModel:
    """A bundle that was read and verified, and how it is to be run.

    Attributes:
        config: The configuration by which it is to be run.
        bundle: The bundle and its files.
        spec: The model's facts, with the configuration's opening score.
        class_indices: Classes to report; None means all.
        form: The bundle's form in another precision, if that is what is run.
        choice: What was chosen for it and why, for people; empty: nothing was to be chosen.
        is_compared: It was held against its reference a moment ago, when it was chosen.
    """

    config: ModelConfig
    bundle: ModelBundle
    spec: ModelSpec
    class_indices: frozenset[int] | None
    form: ModelBundle | None = None
    choice: str = ""
    is_compared: bool = False

    @property
    def runs(self) -> ModelBundle:
        """The bundle or its form: whose backbone is run."""
        return self.form or self.bundle

    @property
    def arithmetic(self) -> str:
        """What the backend is to compute in where the files leave it open."""
        is_in_file = self.config.backend == "openvino" and self.config.precision == "int8"
        return "f32" if is_in_file else self.config.precision

    def in_precision(self, precision: str) -> "ReadModel":
        """The same model in another precision of OpenVINO: f32, bf16 or int8.

        Raises:
            BundleError: There is no such form of the bundle here.
        """
        form, _arithmetic = in_precision(self.bundle, precision)
        config = self.config.model_copy(update={"precision": precision})
        return replace(self, config=config, form=form)

    @property
    def description(self) -> str:
        """Bundle and backend, for people."""
        return f"{self.spec.model_id} on {self.config.backend}"

    @property
    def feature_id(self) -> str:
        """Equal for models whose features can be mixed."""
        return self.bundle.feature_id

    def check_unchanged(self) -> None:
        """Check that the folder still holds this bundle, for an export may replace it in place.

        Raises:
            BundleError: The folder holds another bundle, or none.
        """
        seen = ModelBundle.load(resolve_bundle(self.config.bundle)).digest
        if seen != self.bundle.digest:
            raise BundleError(
                f"{self.bundle.path}: the bundle was replaced while it was being opened; "
                "reload once it stays"
            )


def bundle_name(config: ModelConfig) -> str:
    """The name of a bundle, which stays the same from one version of it to the next.

    Raises:
        BundleError: The bundle is missing, damaged or foreign.
    """
    return ModelBundle.load(resolve_bundle(config.bundle)).name


def read_model(config: ModelConfig) -> ReadModel:
    """Read and verify a bundle, and check the configuration against it; no device is opened.

    Raises:
        BundleError: The bundle is missing, damaged or foreign.
        ConfigError: A name in `labels` is none of its classes.
    """
    bundle = ModelBundle.load(resolve_bundle(config.bundle))
    spec = bundle.spec
    if config.open_score is not None:
        spec = spec.with_open_score(config.open_score)
    spec = replace(spec, economy=economy_of(config.economy, spec.grid))
    read = ReadModel(config, bundle, spec, class_indices_of(config.labels, spec.class_names))
    is_form = config.backend == "openvino" and config.precision == "int8"
    return read.in_precision("int8") if is_form else read


def economy_of(config: EconomyConfig, grid: Grid) -> EconomySpec:
    """What the backbone is spared, in snippets of a model's grid."""
    look_every = None
    if config.look_every_s is not None:
        look_every = max(round(config.look_every_s * US_PER_S / grid.stride_us), 1)
    return EconomySpec(
        Rung(config.rung),
        Rung(config.under_load),
        config.motion_gate == "static",
        look_every,
        {camera: Rung(rung) for camera, rung in config.cameras.items()},
    )


def open_read(read: ReadModel, on_log: OnLog = lambda _severity, _message: None) -> OpenModel:
    """Open both networks of a bundle that was read.

    Args:
        read: The bundle, and how it is to be run.
        on_log: Told what the runtime says, with a severity.

    Raises:
        BundleError: A network does not keep the contract.
        DeviceError: The backend could not be opened.
    """
    config = read.config
    backends: list[EngineBackend] = []
    try:
        options = backend_options(read, on_log)
        for path in (read.runs.backbone_path, read.bundle.localizer_path):
            backend = open_backend(
                config.backend,
                path,
                precision=read.arithmetic,
                threads=config.threads,
                options=options,
            )
            backends.append(backend)
        return OpenModel(
            read.spec,
            read.class_indices,
            BackendFeatureExtractor(backends[0], read.spec.feature_dim),
            BackendLocalizer(backends[1]),
            tuple(backends),
            read.feature_id,
            read.choice,
        )
    except BaseException:  # if the second network cannot be opened, the first one must be closed
        for backend in backends:
            backend.close()
        raise


def reference_read(read: ReadModel) -> ReadModel:
    """What a model is compared with: its bundle in f32 on the CPU.

    Raises:
        BundleError: The f32 backbone is not here, or is another one.
    """
    # With batches of one the reference answers the same, and takes half the memory.
    in_f32 = {"backend": "openvino", "precision": "f32", "max_batch": 1}
    config = read.config.model_copy(update=in_f32)
    return ReadModel(config, reference_of(read.bundle), read.spec, read.class_indices)


def must_be_compared(backends: Sequence[EngineBackend]) -> bool:
    """True if a model must be compared with its reference.

    An f32 file that runs in f32 on the CPU is itself the reference, and a dry run has none.
    """
    kind, *_ = backends[0].description.split()
    if kind == "openvino":
        return any(" f32 " not in f"{b.description} " or " as " in b.description for b in backends)
    return kind != "scripted"


@contextmanager
def open_localizer(read: ReadModel) -> Iterator[Localizer]:
    """Open the localizer alone, for features that were made before; close it afterwards.

    Raises:
        BundleError: The network does not keep the contract.
        DeviceError: The backend could not be opened.
    """
    config = read.config
    is_auto = config.backend == "openvino" and config.precision == "auto"
    backend = open_backend(
        config.backend,
        read.bundle.localizer_path,
        # Nothing is to be chosen where no backbone runs: a localizer takes next to no time.
        precision="f32" if is_auto else read.arithmetic,
        threads=config.threads,
        options=backend_options(read, lambda _severity, _message: None),
    )
    with closing(backend):
        yield BackendLocalizer(backend)


def build_plans(
    read: ReadModel,
    on_progress: OnProgress,
    on_log: OnLog = lambda _severity, _message: None,
) -> None:
    """Put the plans of both networks into the cache, so that opening them takes no time.

    Args:
        read: The bundle, and how it is to be run.
        on_progress: Told how far the build is. An error that it raises ends the build, of which
            nothing is kept then.
        on_log: Told what TensorRT says, with a severity.

    Raises:
        BundleError: TensorRT cannot run a network.
        DeviceError: There is no TensorRT or no GPU, or the build failed.
    """
    from engine.backends.tensorrt.cuda_pycuda import open_pycuda  # noqa: PLC0415
    from engine.backends.tensorrt.library import find_tensorrt  # noqa: PLC0415
    from engine.backends.tensorrt.plan_cache import PlanCache  # noqa: PLC0415 - only for a GPU
    from engine.backends.tensorrt.plan_recipe import obtain_plan, recipe  # noqa: PLC0415

    trt = find_tensorrt()
    cache = PlanCache(on_note=lambda note: on_log("warning", note))
    options = replace(backend_options(read, on_log), on_progress=on_progress)
    with closing(open_pycuda(read.config.gpu)) as cuda, cuda.current():
        for path in (read.bundle.backbone_path, read.bundle.localizer_path):
            obtain_plan(trt, cuda.identity, cache, recipe(path, options), options)


def backend_options(read: ReadModel, on_log: OnLog) -> BackendOptions:
    """The options that both networks of a bundle are opened with, and plans are built with."""
    # Live, every window is as long as the bundle says; at the start of a run it is padded.
    n_snippets = read.spec.window.window_snippets
    return BackendOptions(
        max_batch=read.config.max_batch,
        one_batch_size=read.config.one_batch_size,
        length=(n_snippets, n_snippets, n_snippets),
        gpu=read.config.gpu,
        on_log=on_log,
    )


def class_indices_of(
    labels: Sequence[str] | None, class_names: Sequence[str]
) -> frozenset[int] | None:
    """The class indices of the names that are given; None, which means all, stays None.

    Raises:
        ConfigError: Names are unknown; each is named, with the classes most like it.
    """
    if labels is None:
        return None
    unknown = [name for name in labels if name not in class_names]
    if unknown:
        raise ConfigError(
            "labels: "
            + "; ".join(
                f"{name!r} is none of the model's {len(class_names)} classes"
                + did_you_mean(name, class_names)
                for name in unknown[:_NAMED]
            )
            + (f"; and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else "")
        )
    return frozenset(class_names.index(name) for name in labels)


def check_model(config: ModelConfig) -> str:
    """Check a bundle, and ``labels`` against it, without opening a device; return a description.

    Raises:
        BundleError: The bundle, or the one it would be compared with, is missing, damaged or
            foreign.
        ConfigError: A name in `labels` is none of its classes, or the precision is none that the
            backend runs it in.
    """
    read = read_model(config)
    held = read.bundle.card.precision
    if config.backend == "tensorrt" and config.precision not in ("auto", "f32", held):
        raise ConfigError(
            f"precision is {config.precision}, but {read.bundle.path} computes in {held}: "
            "TensorRT runs a network as it was exported; set precision to auto, or export it again"
        )
    if config.verify and config.backend != "scripted":
        reference_of(read.bundle)
    n_classes = len(read.spec.class_names)
    n_labels = n_classes if read.class_indices is None else len(read.class_indices)
    return f"{read.spec.model_id}, {n_labels} of {n_classes} classes"


__all__ = [
    "OpenModel",
    "ReadModel",
    "build_plans",
    "check_model",
    "class_indices_of",
    "must_be_compared",
    "open_localizer",
    "open_read",
    "read_model",
    "reference_read",
]
