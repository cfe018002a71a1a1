"""What a bundle is compared with before it serves: itself in f32."""

from dataclasses import replace
from pathlib import Path

from engine.backends.onnx_precision import read_precision
from engine.bundle import ModelBundle
from engine.bundle_files import check_digest
from engine.bundle_networks import BACKBONE
from engine.cache import bundles_dir, shipped_dir
from engine.errors import BundleError


def reference_of(bundle: ModelBundle) -> ModelBundle:
    """The same model with its backbone in f32.

    A converted bundle holds only the backbone that was made; the one that it was made from is
    looked for in the bundle that it names: among those that were pulled, those that come along,
    and beside the bundle itself.

    Raises:
        BundleError: The f32 backbone is not here or another one, the bundle does not say which
            it is, or it is of another precision than it says.
    """
    held = read_precision(bundle.backbone_path)
    if held != bundle.card.precision:
        raise BundleError(
            f"{bundle.path}: the manifest says {bundle.card.precision}, the backbone computes in "
            f"{held}: the bundle contradicts itself; export it again"
        )
    if held == "f32":
        return bundle
    path, original = _original_path(bundle), bundle.original
    return replace(
        bundle,
        card=replace(bundle.card, precision="f32"),
        backbone_path=path,
        backbone_sha256=original.sha256 if original else "",
        original=None,
    )


def _original_path(bundle: ModelBundle) -> Path:
    original = bundle.original
    what = f"bundle {bundle.name} is {bundle.card.precision}"
    if original is None:
        raise BundleError(
            f"{what} and does not say what it was made from, so that nothing shows whether it is "
            "still the same model: convert it again, or set model.verify to false"
        )
    name = original.from_bundle
    for folder in (bundles_dir(), shipped_dir(), bundle.path.resolve().parent):
        path = folder / name / BACKBONE
        if path.is_file():
            check_digest(path, original.sha256)
            return path
    raise BundleError(
        f"{what} of {name}, which is not here to compare it with: s2netd models pull {name} if it "
        f"is a published one, or put its folder into {bundle.path.parent}, or set model.verify to "
        "false"
    )
