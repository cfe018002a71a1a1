"""Whether a model can run here: its bundle, and what is to run it."""

from contextlib import closing

from daemon.check.findings import Findings
from daemon.config import ModelConfig
from daemon.models.choosing import open_model
from daemon.models.reading import check_model
from daemon.starting import first_model
from engine.backends import check_installed
from engine.backends.names import BackendKind


def check_networks(config: ModelConfig, findings: Findings) -> str:
    """Check a model without opening a device; its description, empty if it is wrong."""
    description = ""
    with findings.of("model"):
        description = check_model(config)
        findings.say(f"ok: model: {description}")
    for kind in _needed(config):
        with findings.of(f"model.backend: {kind}", "is installed"):
            check_installed(kind)
    return description


def probe_device(config: ModelConfig, findings: Findings) -> None:
    """Try the device that a model is to run on: a CPU with the model, a GPU without."""
    if config.backend == "tensorrt":
        with findings.of("model.gpu", f"GPU {config.gpu} can be opened; its plans are not built"):
            _open_gpu(config.gpu)
    else:
        with findings.of("model.backend", f"{config.bundle} answers on {config.backend}"):
            # A look leaves no trace, so nothing is measured and kept here.
            is_auto = config.backend == "openvino" and config.precision == "auto"
            model = open_model(
                config.model_copy(update={"precision": "f32"}) if is_auto else config
            )
            with closing(model):
                model.warm_up()


def _needed(config: ModelConfig) -> list[BackendKind]:
    """What runs it, what does so until plans are built, and what it is compared with."""
    kinds = {config.backend, first_model(config).backend}
    if config.verify and config.backend == "tensorrt":
        kinds.add("openvino")
    return sorted(kinds)


def _open_gpu(gpu: int) -> None:
    from engine.backends.tensorrt.cuda_pycuda import open_pycuda  # noqa: PLC0415 - needs a GPU

    with closing(open_pycuda(gpu)) as cuda, cuda.current():
        cuda.memory()
