"""What a training leaves in its run folder: tensors, the configuration, classes, camera means.

Tensors are kept as safetensors files, a JSON header and raw bytes, so loading one never runs
code.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from engine.errors import DataError
from engine.files.npz import NPZ_DAMAGE
from engine.grid import Grid
from engine.types import FloatArray
from training.config import NetworkChoice, TrainingConfig, read_training_config
from training.networks import entry_of
from training.networks.base import Network

Tensors = dict[str, npt.NDArray[Any]]

CHECKPOINT = "checkpoint.safetensors"
CONFIG = "training.yaml"
CAMERA_MEANS = "backgrounds.npz"
CLASSES = "classes.json"
FEATURES = "features.json"


def write_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; it appears whole or not at all."""
    unfinished = path.with_name(f"{path.name}.part")
    # The writer copies memory as it lies, and ascontiguousarray would give a scalar an axis.
    dense = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    save_file(dense, unfinished, metadata=dict(metadata))
    unfinished.replace(path)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Read a safetensors file's tensors and metadata; the caller owns the arrays.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        with path.open("rb"):  # the library's own error has no ``strerror``
            pass
        with safe_open(path, framework="numpy") as file:
            # The file object is no mapping and cannot be iterated over.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}: train again") from error
    # The last two come from element types that are in the format and not in numpy.
    except (SafetensorError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}): train again") from error


def tensors_of(network: torch.nn.Module, prefix: str = "") -> Tensors:
    """Copy a network's parameters and buffers into arrays."""
    return {
        f"{prefix}{name}": tensor.detach().cpu().numpy().copy()
        for name, tensor in network.state_dict().items()
    }


def load_tensors(network: torch.nn.Module, tensors: Tensors, path: Path, prefix: str = "") -> None:
    """Fill a network's parameters and buffers.

    Args:
        network: It is changed.
        tensors: Name → array.
        path: The file they are from, for messages.
        prefix: Only names that begin with it count, and it is cut off.

    Raises:
        DataError: Names or shapes differ.
    """
    own = {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in tensors.items()
        if name.startswith(prefix)
    }
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    seen = {name: tuple(tensor.shape) for name, tensor in own.items()}
    for name in sorted(set(wanted) | set(seen)):
        if wanted.get(name) != seen.get(name):
            raise DataError(
                f"{path}: tensor {name} is {seen.get(name)}, the configured network has "
                f"{wanted.get(name)}: it belongs to another configuration; train again"
            )
    network.load_state_dict(own)


def build_network(choice: NetworkChoice, feature_dim: int, n_classes: int) -> Network:
    """Build a fresh network; its weights come from torch's global generator."""
    return entry_of(choice.kind).build(choice.config, feature_dim=feature_dim, n_classes=n_classes)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetwork:
    """What a finished training gave.

    Attributes:
        network: The network with the averaged weights, in evaluation mode, on the CPU.
        config: What it was trained by.
        class_names: C names.
        feature_dim: D.
        grid: The grid of its features.
        camera_means: Camera → float32 (D,); ``""`` for every camera that is not named.
        manifest: The features' own manifest; empty if they had none.
        identity: Digest of the configuration and data that made it.
    """

    network: Network
    config: TrainingConfig
    class_names: tuple[str, ...]
    feature_dim: int
    grid: Grid
    camera_means: dict[str, FloatArray]
    manifest: dict[str, Any]
    identity: str

    def camera_mean(self, camera: str) -> FloatArray:
        """Return what to subtract from a camera's features, float32 (D,)."""
        return self.camera_means.get(camera, self.camera_means[""])


def save_run(run: TrainedNetwork, out: Path) -> None:
    """Write the run folder.

    ``checkpoint.safetensors`` is written last, so a folder that has it is whole.
    """
    names = sorted(set(run.camera_means) - {""})
    vectors = np.array([run.camera_means[name] for name in names], np.float32)
    save_config(run.config, out)
    with (out / CAMERA_MEANS).open("wb") as file:
        np.savez(
            file,
            default=run.camera_means[""],
            names=np.array(names, np.str_),
            vectors=vectors.reshape(len(names), run.feature_dim),
        )
    classes = {
        "class_names": list(run.class_names),
        "feature_dim": run.feature_dim,
        "timeline": asdict(run.grid),
    }
    _write_json(out / CLASSES, classes)
    _write_json(out / FEATURES, run.manifest)
    write_tensors(out / CHECKPOINT, tensors_of(run.network), {"identity": run.identity})


def save_config(config: TrainingConfig, out: Path) -> None:
    """Write ``training.yaml`` with every key resolved."""
    text = yaml.safe_dump(config.content, sort_keys=False, allow_unicode=True, width=99)
    (out / CONFIG).write_text(text, encoding="utf-8")


def load_run(folder: Path) -> TrainedNetwork:
    """Read the folder of a finished training.

    Raises:
        BundleError: Its configuration cannot be read.
        DataError: A file is missing, damaged, or contradicts the others.
    """
    config = read_training_config(folder / CONFIG)
    classes = read_json(folder / CLASSES)
    try:
        names = tuple(str(name) for name in classes["class_names"])
        feature_dim, grid = int(classes["feature_dim"]), Grid(**classes["timeline"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / CLASSES} is damaged ({error}): train again") from error
    camera_means = _camera_means(folder / CAMERA_MEANS, feature_dim)
    manifest = read_json(folder / FEATURES)
    tensors, metadata = read_tensors(folder / CHECKPOINT)
    with torch.random.fork_rng(devices=[]):
        network = build_network(config.network, feature_dim, len(names))
    load_tensors(network, tensors, folder / CHECKPOINT)
    network.eval()
    identity = metadata.get("identity", "")
    return TrainedNetwork(
        network, config, names, feature_dim, grid, camera_means, manifest, identity
    )


def _camera_means(path: Path, feature_dim: int) -> dict[str, FloatArray]:
    """Read camera → float32 (D,); the file holds ``default`` (D,) and ``vectors`` (N, D)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            default, names, vectors = arrays["default"], arrays["names"], arrays["vectors"]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}: train again") from error
    except NPZ_DAMAGE as error:
        raise DataError(f"{path} is damaged ({error}): train again") from error
    if default.shape != (feature_dim,) or vectors.shape != (len(names), feature_dim):
        raise DataError(
            f"{path}: backgrounds are {default.shape} and {vectors.shape}, the classes' file "
            f"says {feature_dim} features: train again"
        )
    found = {str(name): vector for name, vector in zip(names, vectors, strict=True)}
    return {"": default, **found}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON mapping.

    Raises:
        DataError: The file is missing or holds no mapping.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}: train again") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): train again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, wanted a mapping: train again")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
