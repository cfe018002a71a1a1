"""A bundle → the same bundle with its backbone in another precision, or separable.

The localizer stays f32, because it is a thousandth of the work and ends in sums and a softmax.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from engine.backends import open_backend
from engine.backends.names import check_name
from engine.backends.onnx_precision import FilePrecision
from engine.bundle.model_bundle import ModelBundle, ModelCard, write_bundle
from engine.bundle.networks import Original, is_plain_name
from engine.bundle.room import make_room
from engine.errors import BundleError, DataError
from engine.types import UInt8Array
from training.precision.calibration_clips import Clips
from training.precision.half import to_precision
from training.precision.int8 import OnProgress, to_int8
from training.precision.separable import Separable, to_separable

Precision = FilePrecision

GOAL = 0.99  # a conversion is good if no cosine between features is below


@dataclass(frozen=True, slots=True)
class Likeness:
    """Features of a converted backbone against those of its f32 original, on this machine.

    Attributes:
        mean: Mean cosine over the snippets.
        lowest: Lowest cosine of one snippet.
        n_snippets: Number of snippets compared; none of them was calibrated on.
    """

    mean: float
    lowest: float
    n_snippets: int

    @override
    def __str__(self) -> str:
        """Write one line for people."""
        snippets = "snippet" if self.n_snippets == 1 else "snippets"
        return (
            f"features against the original's: cosine {self.mean:.4f}, lowest {self.lowest:.4f} "
            f"({self.n_snippets} {snippets} kept back)"
        )


def precision_of(name: str) -> Precision:
    """Return a precision by its name.

    Raises:
        DataError: There is none of this name.
    """
    check_name("--precision", name, get_args(Precision), DataError)
    return cast("Precision", name)


def lowered(
    network: bytes,
    precision: Precision,
    clips: Clips | None = None,
    on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> bytes:
    """Convert a backbone to another precision.

    Args:
        network: Serialised ONNX in f32.
        precision: The precision wanted; f32 gives the network back as it is.
        clips: What int8 is calibrated on.
        on_progress: Gets stage, done and total during calibration.

    Returns:
        Serialised ONNX.

    Raises:
        BundleError: The network cannot be converted.
        DataError: int8 is wanted without clips.
        DeviceError: OpenVINO, which calibration needs, is missing or failed.
    """
    match precision:
        case "f32":
            return network
        case "f16" | "bf16":
            return to_precision(network, precision)
        case "int8":
            snippets = clips.calibration if clips is not None else ()
            if not snippets:
                raise DataError(
                    "int8 is calibrated on real footage: name some with --calibrate CLIPS"
                )
            return to_int8(network, snippets, on_progress=on_progress).network


def convert(
    bundle: ModelBundle,
    precision: Precision,
    out: Path,
    *,
    name: str,
    clips: Clips | None = None,
    on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> Path:
    """Write a bundle that differs in its backbone's precision and has its backbone inside.

    Args:
        bundle: The bundle to convert, in f32.
        precision: The precision wanted: f16, bf16 or int8.
        out: The new bundle's folder.
        name: The new bundle's name.
        clips: What int8 is calibrated on.
        on_progress: Gets stage, done and total during calibration.

    Returns:
        ``out``.

    Raises:
        BundleError: The bundle is not f32, or cannot be converted.
        DataError: f32 is wanted, or int8 without clips, or the name cannot be one.
        DeviceError: OpenVINO, which calibration needs, is missing or failed.
    """
    if precision == "f32":
        raise DataError("--precision is f32, which every bundle starts from: wanted another")
    check_is_f32(bundle)
    card = replace(
        _card_of_copy(bundle, name, described(bundle.card, precision, clips)), precision=precision
    )
    make_room(out)
    network = lowered(bundle.backbone_path.read_bytes(), precision, clips, on_progress)
    return _write_copy(bundle, out, card, network, original_of(bundle))


def separate(
    bundle: ModelBundle,
    work: float,
    out: Path,
    *,
    name: str,
    clips: Clips,
    on_progress: OnProgress = lambda _stage, _done, _total: None,
) -> Separable:
    """Write a bundle whose backbone is this one's made separable, in f32 and inside it.

    It is an original itself: its features are its own, and other precisions are made from it.

    Args:
        bundle: The bundle to start from, in f32.
        work: As for ``to_separable``.
        out: The new bundle's folder.
        name: The new bundle's name.
        clips: What the layers are fitted to.
        on_progress: Gets stage, done and total.

    Returns:
        The backbone.

    Raises:
        BundleError: The bundle is not f32, or has nothing to split.
        DataError: The clips are too few, or the name cannot be one.
        DeviceError: OpenVINO is missing or failed.
    """
    check_is_f32(bundle)
    how = (
        f"backbone of {bundle.name} made separable, {work:g} of the work, fitted to "
        f"{len(clips.calibration)} snippets of {clips.n_videos} videos"
    )
    card = _card_of_copy(bundle, name, how)
    make_room(out)
    found = to_separable(
        bundle.backbone_path.read_bytes(), clips.calibration, work=work, on_progress=on_progress
    )
    _write_copy(bundle, out, card, found.network, None)
    return found


def _card_of_copy(bundle: ModelBundle, name: str, how: str) -> ModelCard:
    """The bundle's card under another name, with how its backbone was made.

    Raises:
        DataError: The name cannot be one.
    """
    try:
        return replace(bundle.card, name=name, source=f"{bundle.card.source}; {how}")
    except ValueError as error:
        raise DataError(f"bundle {name}: {error}") from error


def _write_copy(
    bundle: ModelBundle, out: Path, card: ModelCard, network: bytes, original: Original | None
) -> Path:
    """Write the bundle with another backbone; all else is as it was."""
    return write_bundle(
        out,
        card,
        backbone=network,
        localizer=bundle.localizer_path.read_bytes(),
        camera_mean=bundle.spec.camera_mean,
        tolerance=bundle.tolerance,
        original=original,
    )


def original_of(bundle: ModelBundle) -> Original:
    """Say which original a backbone has that is made from this bundle's."""
    folder = bundle.path.resolve().name
    its_own = folder if is_plain_name(folder) else bundle.name
    return Original(bundle.backbone_sha256, bundle.backbone_model or its_own)


def check_is_f32(bundle: ModelBundle) -> None:
    """Refuse to convert a bundle that is converted already.

    Raises:
        BundleError: It is not f32.
    """
    if bundle.card.precision != "f32":
        raise BundleError(
            f"bundle {bundle.name} is {bundle.card.precision} already: start from the f32 one"
        )


def described(card: ModelCard, precision: Precision, clips: Clips | None) -> str:
    """Say in words how a backbone was converted, for the bundle's ``source``."""
    text = f"backbone of {card.name} in {precision}"
    if precision == "int8" and clips is not None:
        text += f", calibrated on {len(clips.calibration)} snippets of {clips.n_videos} videos"
    return text


def likeness(
    original: Path,
    converted: Path,
    snippets: Sequence[UInt8Array],
    on_progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> Likeness | None:
    """Compare the features of two backbones, in OpenVINO on this machine.

    Args:
        original: ONNX file of the f32 backbone.
        converted: ONNX file of the converted one.
        snippets: uint8 (L, H, W, 3) each.
        on_progress: Gets stage, done and total.

    Returns:
        How alike they are; None if there are no snippets.

    Raises:
        BundleError: A file is no network that OpenVINO can run.
        DeviceError: The runtime is missing or failed.
    """
    if not snippets:
        return None
    total = 2 * len(snippets)
    exact = _features(original, snippets, lambda n: on_progress("comparing", n, total))
    seen = _features(
        converted, snippets, lambda n: on_progress("comparing", len(snippets) + n, total)
    )
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(seen, axis=1)
    cosines = (exact * seen).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return Likeness(float(cosines.mean()), float(cosines.min()), len(snippets))


def _features(
    path: Path, snippets: Sequence[UInt8Array], on_done: Callable[[int], None]
) -> npt.NDArray[np.float64]:
    """Run snippets uint8 (L, H, W, 3) one by one; give their features, float64 (N, D)."""
    backend = open_backend("openvino", path, precision="f32")
    rows = []
    try:
        for number, snippet in enumerate(snippets, 1):
            rows.append(backend.run({"snippets": snippet[None]})["features"][0])
            on_done(number)
    finally:
        backend.close()
    return np.array(rows, np.float64)
