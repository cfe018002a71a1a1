"""``backgrounds.npz``: a bundle's camera means, one for each known camera and one for the others.

Keys: ``default`` float32 (D,), ``names`` unicode (N,), ``vectors`` float32 (N, D). No pickle.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import BundleError
from engine.files.npz import NPZ_DAMAGE
from engine.spec import CameraMeanSpec
from engine.types import FloatArray

CAMERA_MEANS = "backgrounds.npz"
MAX_BYTES = 1 << 26  # 16 000 cameras of 1024 numbers


@dataclass(frozen=True, slots=True)
class CameraMeans:
    """What the manifest says of the file, and how a camera's mean goes on from there.

    Attributes:
        sha256: SHA-256 of the file, in hex.
        prior_snippets_known: See ``CameraMeanSpec``.
        prior_snippets_new: See ``CameraMeanSpec``.
        memory_snippets: See ``CameraMeanSpec``.
    """

    sha256: str
    prior_snippets_known: int
    prior_snippets_new: int
    memory_snippets: int


def write_camera_means(folder: Path, spec: CameraMeanSpec) -> CameraMeans:
    """Write the file; give what the manifest says of it.

    Raises:
        OSError: It cannot be written.
    """
    names = sorted(spec.cameras)
    vectors = [spec.cameras[name] for name in names]
    blob = io.BytesIO()
    np.savez(
        blob,
        default=spec.default,
        names=np.array(names, np.str_),
        vectors=np.array(vectors, np.float32).reshape(len(names), len(spec.default)),
    )
    (folder / CAMERA_MEANS).write_bytes(blob.getvalue())
    return CameraMeans(
        hashlib.sha256(blob.getvalue()).hexdigest(),
        spec.prior_snippets_known,
        spec.prior_snippets_new,
        spec.memory_snippets,
    )


def read_camera_means(folder: Path, manifest: CameraMeans, feature_dim: int) -> CameraMeanSpec:
    """Read the file, trusting nothing in it.

    Args:
        folder: The bundle's folder.
        manifest: What its manifest says of the file; its digest was compared.
        feature_dim: D.

    Raises:
        BundleError: It is damaged, or not of the model's width.
    """
    path = folder / CAMERA_MEANS
    try:
        default, names, vectors = _arrays(path)
        _check(default, names, vectors, feature_dim)
        return CameraMeanSpec(
            manifest.prior_snippets_known,
            manifest.prior_snippets_new,
            manifest.memory_snippets,
            default,
            dict(zip(names, vectors, strict=True)),
        )
    except NPZ_DAMAGE as error:
        raise BundleError(f"{path}: {error}; export the bundle again") from error


def _arrays(path: Path) -> tuple[FloatArray, list[str], FloatArray]:
    """Default (D,), names and vectors (N, D) as the file has them, still unchecked."""
    with zipfile.ZipFile(path) as archive:
        n_bytes = sum(member.file_size for member in archive.infolist())
    if n_bytes > MAX_BYTES:
        raise ValueError(f"holds {n_bytes} bytes, at most {MAX_BYTES} are read")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["default"], list(arrays["names"].tolist()), arrays["vectors"]


def _check(default: FloatArray, names: list[str], vectors: FloatArray, dim: int) -> None:
    """Refuse all but finite float32, default (D,) and vectors (N, D), and N different names."""
    if len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError("names must be texts that differ from each other")
    for key, array, shape in (
        ("default", default, (dim,)),
        ("vectors", vectors, (len(names), dim)),
    ):
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"{key} is {array.dtype} {array.shape}, wanted float32 {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{key} is not finite")
