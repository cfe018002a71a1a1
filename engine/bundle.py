"""The contract between training and production: a folder with two networks and a manifest.

``backbone.onnx`` turns snippets into features, ``localizer.onnx`` windows of features into class
activation sequences; ``bundle.yaml`` says everything else and holds both files' SHA-256. The
bundle's own digest is that of the manifest, so it covers all three.
"""

import hashlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from engine.backends.base import Signature, TensorSpec
from engine.backends.signatures import read_signature
from engine.cache import bundles_dir
from engine.errors import BundleError
from engine.manifest import parse, plain, read_yaml
from engine.spec import FrameGeometry, ModelSpec, ProposalSpec, TrackerSpec, WindowSpec
from engine.timeline import Timeline

SCHEMA_VERSION = 1
MANIFEST = "bundle.yaml"
BACKBONE = "backbone.onnx"
LOCALIZER = "localizer.onnx"
_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Pixels:
    """How bytes become network input; done inside ``backbone.onnx``, written down for readers.

    Attributes:
        colours: Order of the channels.
        mean: Subtracted from 0..255, a channel.
        std: Divided by, a channel.
    """

    colours: Literal["rgb"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All a bundle says besides its networks.

    Attributes:
        name: Short name, part of every event's model id.
        version: Of this bundle under this name.
        source: Where the weights come from.
        precision: Of the weights.
        feature_dim: D.
        pixels: Input normalisation.
        timeline: The time grid.
        geometry: Frame size and fit.
        window: Window sizes.
        proposals: Post-processing.
        tracker: Event life cycle.
        class_names: C names.
    """

    name: str
    version: int
    source: str
    precision: Literal["f32", "f16", "int8"]
    feature_dim: int
    pixels: Pixels
    timeline: Timeline
    geometry: FrameGeometry
    window: WindowSpec
    proposals: ProposalSpec
    tracker: TrackerSpec
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name or not set(self.name) <= _NAME_CHARACTERS:
            raise ValueError(f"name is {self.name!r}, wanted letters, digits, '-', '_' and '.'")
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names must be there, and differ from each other")

    def spec(self, digest: str) -> ModelSpec:
        """What a stream's session needs of it."""
        return ModelSpec(
            model_id=f"{self.name}@{digest[:_ID_DIGITS]}",
            class_names=self.class_names,
            feature_dim=self.feature_dim,
            timeline=self.timeline,
            geometry=self.geometry,
            window=self.window,
            proposals=self.proposals,
            tracker=self.tracker,
        )


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@dataclass(frozen=True, slots=True)
class _Network:
    """One ONNX file of a bundle."""

    sha256: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class _Manifest:
    """bundle.yaml."""

    schema_version: int
    model: ModelCard
    backbone: _Network
    localizer: _Network


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """A bundle whose files are what its manifest says.

    Attributes:
        path: Its folder.
        digest: SHA-256 of the manifest, in hex.
        card: What the manifest says of the model.
        spec: What a session needs of it.
        backbone_sha256: SHA-256 of ``backbone.onnx``: names the feature extractor.
    """

    path: Path
    digest: str
    card: ModelCard
    spec: ModelSpec
    backbone_sha256: str

    @classmethod
    def load(cls, path: Path) -> "ModelBundle":
        """Read a bundle and verify all of it.

        Raises:
            BundleError: It is missing, damaged, foreign, or of another version.
        """
        content, blob = read_yaml(path / MANIFEST)
        seen = content.get("schema_version")
        if seen != SCHEMA_VERSION:
            raise BundleError(
                f"{path / MANIFEST}: schema_version is {seen!r}, this s2netd reads "
                f"{SCHEMA_VERSION}: export or pull the bundle again"
            )
        manifest = parse(_Manifest, content, str(path / MANIFEST))
        _check_digest(path / BACKBONE, manifest.backbone.sha256)
        _check_digest(path / LOCALIZER, manifest.localizer.sha256)
        _check_shapes(path, manifest)
        digest = hashlib.sha256(blob).hexdigest()
        try:
            spec = manifest.model.spec(digest)
        except ValueError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from error
        return cls(path, digest, manifest.model, spec, manifest.backbone.sha256)

    @property
    def name(self) -> str:
        """Short name."""
        return self.card.name

    @property
    def model_id(self) -> str:
        """Name and digest, as in every event."""
        return self.spec.model_id

    @property
    def backbone_path(self) -> Path:
        """Snippets → features."""
        return self.path / BACKBONE

    @property
    def localizer_path(self) -> Path:
        """Windows of features → class activation sequences."""
        return self.path / LOCALIZER


def resolve_bundle(name_or_path: str | Path) -> Path:
    """The folder of a bundle named by its path or, if it was pulled, by its name.

    Raises:
        BundleError: There is none.
    """
    path = Path(name_or_path)
    if (path / MANIFEST).is_file():
        return path
    pulled = bundles_dir() / path
    if len(path.parts) == 1 and (pulled / MANIFEST).is_file():
        return pulled
    if len(path.parts) == 1 and not path.exists():
        raise BundleError(f"no bundle {path} in {bundles_dir()}: s2netd models pull {path}")
    raise BundleError(f"{path} is no bundle: it holds no {MANIFEST}")


def write_bundle(folder: Path, card: ModelCard, *, backbone: bytes, localizer: bytes) -> Path:
    """Write a bundle; it appears whole or not at all, in place of what was there.

    Args:
        folder: Where; its parent must exist.
        card: All the manifest says of the model.
        backbone: Serialised ONNX.
        localizer: Serialised ONNX.

    Returns:
        ``folder``.

    Raises:
        BundleError: The networks and the card contradict each other.
        OSError: It cannot be written.
    """
    with _appearing(folder) as unfinished:
        networks = {}
        for file_name, blob in ((BACKBONE, backbone), (LOCALIZER, localizer)):
            (unfinished / file_name).write_bytes(blob)
            networks[file_name] = _describe(unfinished / file_name, blob)
        manifest = _Manifest(SCHEMA_VERSION, card, networks[BACKBONE], networks[LOCALIZER])
        text = yaml.safe_dump(plain(manifest), sort_keys=False, allow_unicode=True, width=99)
        (unfinished / MANIFEST).write_text(text, encoding="utf-8")
        ModelBundle.load(unfinished)
    return folder


def _describe(path: Path, blob: bytes) -> _Network:
    signature, opset = read_signature(path)
    return _Network(hashlib.sha256(blob).hexdigest(), opset, signature.inputs, signature.outputs)


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.unfinished")
    unfinished.mkdir()
    try:
        yield unfinished
        if folder.exists():
            old = folder.with_name(f"{unfinished.name}.old")
            folder.rename(old)
            unfinished.rename(folder)
            shutil.rmtree(old)
        else:
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_digest(path: Path, wanted: str) -> None:
    try:
        with path.open("rb") as file:
            seen = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if seen != wanted:
        raise BundleError(
            f"{path}: SHA-256 is {seen}, {MANIFEST} says {wanted}: the file was changed or "
            "damaged; export or pull the bundle again"
        )


def _check_shapes(path: Path, manifest: _Manifest) -> None:
    model = manifest.model
    side, length = model.geometry.crop_px, model.timeline.snippet_frames
    n_classes, dim = len(model.class_names), model.feature_dim
    backbone = Signature(
        (TensorSpec("snippets", (None, length, side, side, 3), "uint8"),),
        (TensorSpec("features", (None, dim), "float32"),),
    )
    localizer = Signature(
        (
            TensorSpec("features", (None, None, dim), "float32"),
            TensorSpec("valid", (None, None), "float32"),
        ),
        (
            TensorSpec("cas", (None, None, n_classes), "float32"),
            TensorSpec("attention", (None, None), "float32"),
            TensorSpec("video_scores", (None, n_classes), "float32"),
        ),
    )
    for file_name, network, wanted in (
        (BACKBONE, manifest.backbone, backbone),
        (LOCALIZER, manifest.localizer, localizer),
    ):
        _check_tensors(path / file_name, network.inputs, wanted.inputs)
        _check_tensors(path / file_name, network.outputs, wanted.outputs)


def _check_tensors(
    path: Path, seen: tuple[TensorSpec, ...], wanted: tuple[TensorSpec, ...]
) -> None:
    for want in wanted:
        have = next((spec for spec in seen if spec.name == want.name), None)
        if have is None or not _compatible(have, want):
            raise BundleError(
                f"{path}: tensor {want.name} is {have and (have.dtype, have.shape)}, the manifest "
                f"needs {(want.dtype, want.shape)}: the bundle contradicts itself; export it again"
            )


def _compatible(have: TensorSpec, want: TensorSpec) -> bool:
    return (
        have.dtype == want.dtype
        and len(have.shape) == len(want.shape)
        and all(
            a is None or b is None or a == b for a, b in zip(have.shape, want.shape, strict=True)
        )
    )
