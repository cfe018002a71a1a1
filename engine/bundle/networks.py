"""What a bundle's manifest says of its two networks, and whether that fits the model's card."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engine.backends.base import Signature, TensorSpec
from engine.backends.signatures import read_signature
from engine.errors import BundleError

BACKBONE = "backbone.onnx"
LOCALIZER = "localizer.onnx"


@dataclass(frozen=True, slots=True)
class Network:
    """One ONNX file of a bundle."""

    sha256: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Backbone(Network):
    """``backbone.onnx``, in the bundle's own folder or in that of a published model.

    Attributes:
        from_model: The published model whose backbone it is; None: the bundle has its own.
    """

    from_model: str | None

    def __post_init__(self) -> None:
        name = self.from_model
        if name is not None and (not is_plain_name(name) or name.startswith(".")):
            raise ValueError(f"from_model is {name!r}, wanted the name of a published model")


@dataclass(frozen=True, slots=True)
class Original:
    """The f32 backbone that a converted one was made from; not in the bundle.

    Attributes:
        sha256: Of its file, in hex.
        from_bundle: Name of a bundle that holds it.
    """

    sha256: str
    from_bundle: str

    def __post_init__(self) -> None:
        name = self.from_bundle
        if not is_plain_name(name) or name.startswith("."):
            raise ValueError(f"from_bundle is {name!r}, wanted the name of a bundle")


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def is_plain_name(name: str) -> bool:
    """Is it of letters, digits, '-', '_' and '.' alone, so that it names a folder, not a path?"""
    return bool(name) and set(name) <= _NAME_CHARACTERS


@dataclass(frozen=True, slots=True)
class Sizes:
    """What both networks must agree on.

    Attributes:
        side_px: Side of the square that the backbone sees, H and W.
        snippet_frames: L.
        feature_dim: D.
        n_classes: C.
        has_camera_mean: The localizer takes a camera's mean.
    """

    side_px: int
    snippet_frames: int
    feature_dim: int
    n_classes: int
    has_camera_mean: bool


def describe_network(path: Path) -> Network:
    """What the manifest will say of an ONNX file.

    Raises:
        BundleError: It is no ONNX file that can be read.
    """
    signature, opset = read_signature(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Network(digest, opset, signature.inputs, signature.outputs)


def check_networks(path: Path, backbone: Network, localizer: Network, sizes: Sizes) -> None:
    """Hold what a manifest says of both networks to its card.

    Args:
        path: The bundle's folder, for the message.
        backbone: The backbone, as the manifest describes it.
        localizer: The localizer, as the manifest describes it.
        sizes: What the card says.

    Raises:
        BundleError: A tensor does not fit; the message names it.
    """
    _check(path / BACKBONE, backbone, _wanted_backbone(sizes))
    _check(path / LOCALIZER, localizer, _wanted_localizer(sizes))


def check_files(backbone: Path, localizer: Path, sizes: Sizes) -> None:
    """Hold both files themselves to the card, whatever the manifest says of them.

    Raises:
        BundleError: A tensor does not fit, or a file is none that can be read.
    """
    for path, wanted in (
        (backbone, _wanted_backbone(sizes)),
        (localizer, _wanted_localizer(sizes)),
    ):
        signature, _opset = read_signature(path)
        _check(path, signature, wanted)


def _wanted_backbone(sizes: Sizes) -> Signature:
    side_px = sizes.side_px
    return Signature(
        (TensorSpec("snippets", (None, sizes.snippet_frames, side_px, side_px, 3), "uint8"),),
        (TensorSpec("features", (None, sizes.feature_dim), "float32"),),
    )


def _wanted_localizer(sizes: Sizes) -> Signature:
    inputs = [
        TensorSpec("features", (None, None, sizes.feature_dim), "float32"),
        TensorSpec("valid", (None, None), "float32"),
    ]
    if sizes.has_camera_mean:
        inputs.append(TensorSpec("background", (None, sizes.feature_dim), "float32"))
    outputs = (
        TensorSpec("cas", (None, None, sizes.n_classes), "float32"),
        TensorSpec("attention", (None, None), "float32"),
        TensorSpec("video_scores", (None, sizes.n_classes), "float32"),
    )
    return Signature(tuple(inputs), outputs)


def _check(path: Path, network: Network | Signature, wanted: Signature) -> None:
    for seen, specs in ((network.inputs, wanted.inputs), (network.outputs, wanted.outputs)):
        for want in specs:
            have = next((spec for spec in seen if spec.name == want.name), None)
            if have is None or not _compatible(have, want):
                raise BundleError(
                    f"{path}: tensor {want.name} is {have and (have.dtype, have.shape)}, the "
                    f"manifest needs {(want.dtype, want.shape)}: the bundle contradicts itself; "
                    "export it again"
                )
    names = {spec.name for spec in wanted.inputs}
    if strange := sorted({spec.name for spec in network.inputs} - names):
        raise BundleError(
            f"{path}: takes a tensor {strange[0]}, and the manifest gives only {sorted(names)}: "
            "the bundle contradicts itself; export it again"
        )


def _compatible(have: TensorSpec, want: TensorSpec) -> bool:
    return (
        have.dtype == want.dtype
        and len(have.shape) == len(want.shape)
        and all(
            a is None or b is None or a == b for a, b in zip(have.shape, want.shape, strict=True)
        )
    )
