"""The int8 forms of bundles that come with this package: made here, and equal on every machine.

What was measured on footage is shipped (`CALIBRATIONS`), and the network that is made of it is
pinned, so nobody needs footage or the trainer's commands for them.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from engine.bundle.forms import int8_form_of, int8_name
from engine.bundle.model_bundle import ModelBundle, write_bundle
from engine.bundle.networks import Original
from engine.errors import BundleError, WeightsError
from engine.files.cache import bundles_dir


@dataclass(frozen=True, slots=True)
class ShippedCalibration:
    """From what an int8 form is made, and what comes of it.

    Attributes:
        of_sha256: SHA-256 of the backbone in f32.
        path: The calibration.
        sha256: SHA-256 of the backbone in int8.
    """

    of_sha256: str
    path: Path
    sha256: str


CALIBRATIONS: tuple[ShippedCalibration, ...] = (
    ShippedCalibration(
        of_sha256="89580dd07844c2c4e3273c83c7f42355aeb4d025da6e72ff2be1da3188dc6758",
        path=Path(__file__).with_name("scenes-int8.npz"),
        sha256="0c02f0e3853d0e9a9268d4510a2d4c77d14944d64bcd45c01f164eb3443e8f47",
    ),
)


def is_int8_form_missing(bundle: ModelBundle) -> bool:
    """Can the int8 form of a shipped bundle be made, and is it not here whole?"""
    calibration = _calibration_of(bundle)
    if calibration is None:
        return False
    try:
        form = int8_form_of(bundle)
    except BundleError:
        return True
    return form is None or form.backbone_sha256 != calibration.sha256


def write_int8_form(bundle: ModelBundle) -> Path:
    """Make the int8 form of a shipped bundle, in place of what its folder holds.

    Raises:
        WeightsError: What came of it is not what was pinned.
        OSError: It cannot be written.
    """
    from engine.published.int8 import in_int8, read_calibration  # noqa: PLC0415 - needs onnx

    calibration = _calibration_of(bundle)
    if calibration is None:
        raise WeightsError(f"no calibration of the backbone of {bundle.name} is shipped")
    network = in_int8(bundle.backbone_path.read_bytes(), read_calibration(calibration.path))
    seen = hashlib.sha256(network).hexdigest()
    if seen != calibration.sha256:
        raise WeightsError(
            f"{calibration.path} gives a network with SHA-256 {seen}, wanted "
            f"{calibration.sha256}: install s2netd again"
        )
    name = int8_name(bundle)
    return write_bundle(
        bundles_dir() / name,
        replace(bundle.card, name=name, precision="int8"),
        backbone=network,
        localizer=bundle.localizer_path.read_bytes(),
        camera_mean=bundle.spec.camera_mean,
        tolerance=bundle.tolerance,
        original=Original(bundle.backbone_sha256, bundle.backbone_model or bundle.name),
    )


def _calibration_of(bundle: ModelBundle) -> ShippedCalibration | None:
    own = (one for one in CALIBRATIONS if one.of_sha256 == bundle.backbone_sha256)
    return next(own, None)
