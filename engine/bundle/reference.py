"""What a bundle is compared with before it serves: itself in f32."""

from dataclasses import replace
from pathlib import Path

from engine.backends.onnx_precision import read_precision
from engine.bundle.files import check_digest
from engine.bundle.model_bundle import ModelBundle
from engine.bundle.networks import BACKBONE, Original
from engine.errors import BundleError
from engine.files.cache import bundles_dir, shipped_dir


def reference_of(bundle: ModelBundle) -> ModelBundle:
    """The same model with its backbone in f32.

    A converted bundle holds only the converted backbone, and names the bundle that holds the
    original: it is looked for among those pulled, those shipped, and beside the bundle itself.

    Raises:
        BundleError: The f32 backbone is not here or is another one, the bundle does not say which
            it is, or one of them is of another precision than it should be.
    """
    held = read_precision(bundle.backbone_path)
    if held != bundle.card.precision:
        raise BundleError(
            f"{bundle.path}: the manifest says {bundle.card.precision}, the backbone computes in "
            f"{held}: the bundle contradicts itself; export it again"
        )
    if held == "f32":
        return bundle
    if bundle.original is None:
        raise BundleError(
            f"bundle {bundle.name} is {held} and does not say what it was made from, so that "
            "nothing shows whether it is still the same model: convert it again, or set "
            "model.verify to false"
        )
    return replace(
        bundle,
        card=replace(bundle.card, precision="f32"),
        backbone_path=_found(bundle, bundle.original),
        backbone_sha256=bundle.original.sha256,
        original=None,
    )


def _found(bundle: ModelBundle, original: Original) -> Path:
    """The original's file; others of its name are passed over."""
    name, problem = original.from_bundle, "which is not here to compare it with"
    for folder in (bundles_dir(), shipped_dir(), bundle.path.resolve().parent):
        path = folder / name / BACKBONE
        if not path.is_file():
            continue
        try:
            check_digest(path, original.sha256)
        except BundleError:
            problem = f"and what {path.parent} holds is another one"
            continue
        if (held := read_precision(path)) != "f32":
            raise BundleError(f"bundle {bundle.name} names {path} as its original: that is {held}")
        return path
    raise BundleError(
        f"bundle {bundle.name} is {bundle.card.precision} of {name}, {problem}: s2netd models "
        f"pull {name} if it is a published one, or put its folder into {bundle.path.parent}, or "
        "set model.verify to false"
    )
