"""The contract between training and production: a folder with two networks and a manifest.

``backbone.onnx`` turns snippets into features, ``localizer.onnx`` windows of features into class
activation sequences, ``backgrounds.npz`` (where the localizer takes camera means) holds the
cameras' mean features; ``bundle.yaml`` says everything else and holds all files' SHA-256. The
bundle's own digest is that of the manifest, so it covers them all.

A bundle whose backbone is that of a published model names the model (``backbone.from_model``)
instead of holding a copy: the model's file is used, and must have the SHA-256 that is written.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from engine.bundle.files import appearing, check_digest, check_replaceable
from engine.bundle.means import (
    CAMERA_MEANS,
    CameraMeans,
    read_camera_means,
    write_camera_means,
)
from engine.bundle.networks import (
    BACKBONE,
    LOCALIZER,
    Backbone,
    Network,
    Original,
    Sizes,
    check_files,
    check_networks,
    describe_network,
    is_plain_name,
)
from engine.errors import BundleError
from engine.files.cache import bundles_dir, shipped_dir
from engine.files.strict_yaml import MAY_BE_LEFT_OUT, parse, plain, read_yaml
from engine.grid import Grid
from engine.spec import (
    CameraMeanSpec,
    FrameGeometry,
    ModelSpec,
    ProposalSpec,
    Tolerance,
    TrackerSpec,
    WindowSpec,
)

SCHEMA_VERSION = 2
MANIFEST = "bundle.yaml"
_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Pixels:
    """How bytes become network input; done inside ``backbone.onnx``, written down for readers.

    Attributes:
        colours: Order of the channels.
        mean: Subtracted from values of 0..255, for each channel.
        std: What the differences are divided by, for each channel.
    """

    colours: Literal["rgb"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All a bundle says besides its networks.

    Attributes:
        name: Short name, part of every event's model id.
        version: Number of this bundle among those of its name.
        source: Where the weights come from.
        precision: What the backbone computes in.
        feature_dim: D.
        pixels: Input normalisation.
        timeline: The time grid.
        geometry: Frame size and fit.
        window: Window sizes.
        proposals: Post-processing.
        tracker: Event life cycle.
        class_names: C names.
        camera_open_scores: Camera → C opening scores of its own.
    """

    name: str
    version: int
    source: str
    precision: Literal["f32", "f16", "bf16", "int8"]
    feature_dim: int
    pixels: Pixels
    timeline: Grid
    geometry: FrameGeometry
    window: WindowSpec
    proposals: ProposalSpec
    tracker: TrackerSpec
    class_names: tuple[str, ...]
    camera_open_scores: Mapping[str, tuple[float, ...]] = field(
        default_factory=dict, metadata=MAY_BE_LEFT_OUT
    )

    def __post_init__(self) -> None:
        if not is_plain_name(self.name):
            raise ValueError(f"name is {self.name!r}, wanted letters, digits, '-', '_' and '.'")
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names must be there, and differ from each other")

    def spec(self, digest: str, camera_mean: CameraMeanSpec | None = None) -> ModelSpec:
        """What a camera's session needs of it."""
        return ModelSpec(
            model_id=f"{self.name}@{digest[:_ID_DIGITS]}",
            class_names=self.class_names,
            feature_dim=self.feature_dim,
            grid=self.timeline,
            geometry=self.geometry,
            window=self.window,
            proposals=self.proposals,
            tracker=self.tracker,
            camera_mean=camera_mean,
            camera_open_scores=self.camera_open_scores,
        )


@dataclass(frozen=True, slots=True)
class BackboneReference:
    """The backbone of a published model, instead of a copy of it; it must have been pulled."""

    from_model: str


@dataclass(frozen=True, slots=True)
class _Manifest:
    """bundle.yaml."""

    schema_version: int
    model: ModelCard
    backbone: Backbone
    localizer: Network
    background: CameraMeans | None  # the file's word for camera means
    tolerance: Tolerance | None = field(default=None, metadata=MAY_BE_LEFT_OUT)
    original: Original | None = field(default=None, metadata=MAY_BE_LEFT_OUT)

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            side_px=self.model.geometry.crop_px,
            snippet_frames=self.model.timeline.snippet_frames,
            feature_dim=self.model.feature_dim,
            n_classes=len(self.model.class_names),
            has_camera_mean=self.background is not None,
        )


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """A bundle whose files are what its manifest says.

    Attributes:
        path: Its folder.
        digest: SHA-256 of the manifest, in hex.
        card: What the manifest says of the model.
        spec: What a session needs of it.
        backbone_sha256: SHA-256 of ``backbone.onnx``: names the feature extractor.
        backbone_path: Snippets → features; it may lie in another bundle's folder.
        backbone_model: The published model whose file that is; None: it is the bundle's own.
        tolerance: How far a backend may stray and still serve it; None: it does not say, and the
            default holds.
        original: The f32 backbone that this one was made from; None: it was made from none.
    """

    path: Path
    digest: str
    card: ModelCard
    spec: ModelSpec
    backbone_sha256: str
    backbone_path: Path
    backbone_model: str | None
    tolerance: Tolerance | None = None
    original: Original | None = None

    @classmethod
    def load(cls, path: Path) -> "ModelBundle":
        """Read a bundle and verify all of it.

        Raises:
            BundleError: It is missing, damaged, foreign, or of another version.
        """
        manifest, blob = _read_manifest(path)
        backbone = manifest.backbone
        check_digest(_backbone_path(path, backbone), backbone.sha256, backbone.from_model)
        check_digest(path / LOCALIZER, manifest.localizer.sha256)
        check_networks(path, backbone, manifest.localizer, manifest.sizes)
        check_files(_backbone_path(path, backbone), path / LOCALIZER, manifest.sizes)
        camera_mean = None
        if manifest.background is not None:
            check_digest(path / CAMERA_MEANS, manifest.background.sha256)
            camera_mean = read_camera_means(path, manifest.background, manifest.model.feature_dim)
        digest = hashlib.sha256(blob).hexdigest()
        try:
            spec = manifest.model.spec(digest, camera_mean)
        except ValueError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from error
        return cls(
            path,
            digest,
            manifest.model,
            spec,
            backbone.sha256,
            _backbone_path(path, backbone),
            backbone.from_model,
            manifest.tolerance,
            manifest.original,
        )

    @property
    def name(self) -> str:
        """Short name."""
        return self.card.name

    @property
    def model_id(self) -> str:
        """Name and digest, as in every event."""
        return self.spec.model_id

    @property
    def feature_id(self) -> str:
        """Equal for bundles whose features can be mixed: same backbone, grid and picture size."""
        # Snapshots hold a digest of this text, so the text must keep the grid's older name.
        grid = repr(self.spec.grid).replace("Grid(", "Timeline(", 1)
        what = f"{self.backbone_sha256} {grid} {self.spec.geometry}"
        return hashlib.sha256(what.encode()).hexdigest()

    @property
    def localizer_path(self) -> Path:
        """The network's file: windows of features → class activation sequences."""
        return self.path / LOCALIZER


def backbone_model_of(path: Path) -> str | None:
    """The published model whose backbone a bundle needs; no network is looked at.

    Raises:
        BundleError: There is no bundle, or its manifest is damaged.
    """
    return _read_manifest(path)[0].backbone.from_model


def _read_manifest(path: Path) -> tuple[_Manifest, bytes]:
    content, blob = read_yaml(path / MANIFEST)
    seen = content.get("schema_version")
    if seen != SCHEMA_VERSION:
        raise BundleError(
            f"{path / MANIFEST}: schema_version is {seen!r}, this s2netd reads "
            f"{SCHEMA_VERSION}: export or pull the bundle again"
        )
    return parse(_Manifest, content, str(path / MANIFEST)), blob


def _backbone_path(path: Path, backbone: Backbone) -> Path:
    return (bundles_dir() / backbone.from_model if backbone.from_model else path) / BACKBONE


def resolve_bundle(name_or_path: str | Path) -> Path:
    """The folder of a bundle named by its path or, if it was pulled or is shipped, by its name.

    Raises:
        BundleError: There is none, or we may not look.
    """
    path = Path(name_or_path)
    if _holds_manifest(path):
        return path
    if len(path.parts) == 1:
        for folder in (bundles_dir() / path, shipped_dir() / path):
            if _holds_manifest(folder):
                return folder
    if len(path.parts) == 1 and not path.exists():
        raise BundleError(f"no bundle {path} in {bundles_dir()}: s2netd models pull {path}")
    raise BundleError(f"{path} is no bundle: it holds no {MANIFEST}")


def _holds_manifest(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except OSError as error:
        raise BundleError(
            f"{folder} cannot be looked into: {error.strerror}; let this user read it"
        ) from error


def write_bundle(
    folder: Path,
    card: ModelCard,
    *,
    backbone: bytes | BackboneReference,
    localizer: bytes,
    camera_mean: CameraMeanSpec | None = None,
    tolerance: Tolerance | None = None,
    original: Original | None = None,
) -> Path:
    """Write a bundle; it appears whole or not at all, in place of what was there.

    Args:
        folder: Where; its parent must exist.
        card: All the manifest says of the model.
        backbone: Serialised ONNX, or the published model whose backbone it is.
        localizer: Serialised ONNX.
        camera_mean: Means of cameras, where the localizer has an input for them.
        tolerance: How far a backend may stray and still serve it; None: not written.
        original: The f32 backbone that the backbone was made from; None: not written.

    Returns:
        ``folder``.

    Raises:
        BundleError: The networks and the card contradict each other, or the folder holds what is
            no part of a bundle.
        OSError: It cannot be written.
    """
    check_bundle_folder(folder)
    with appearing(folder) as unfinished:
        (unfinished / LOCALIZER).write_bytes(localizer)
        manifest = _Manifest(
            SCHEMA_VERSION,
            card,
            _write_backbone(unfinished, backbone),
            describe_network(unfinished / LOCALIZER),
            write_camera_means(unfinished, camera_mean) if camera_mean is not None else None,
            tolerance,
            original,
        )
        text = yaml.safe_dump(plain(manifest), sort_keys=False, allow_unicode=True, width=99)
        (unfinished / MANIFEST).write_text(text, encoding="utf-8")
        ModelBundle.load(unfinished)
    return folder


def check_bundle_folder(folder: Path) -> None:
    """May a bundle be written there? It replaces a bundle, and nothing else.

    Raises:
        BundleError: It is a file, or holds something else.
    """
    check_replaceable(folder, {MANIFEST, BACKBONE, LOCALIZER, CAMERA_MEANS})


def _write_backbone(folder: Path, backbone: bytes | BackboneReference) -> Backbone:
    """Write the file, unless it lies elsewhere; give what the manifest says of it."""
    from_model = None
    path = folder / BACKBONE
    if isinstance(backbone, BackboneReference):
        from_model = backbone.from_model
        path = bundles_dir() / from_model / BACKBONE
        if not path.is_file():
            raise BundleError(f"{path} is not there: s2netd models pull {from_model}")
    else:
        path.write_bytes(backbone)
    seen = describe_network(path)
    return Backbone(seen.sha256, seen.opset, seen.inputs, seen.outputs, from_model)
