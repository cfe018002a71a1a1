"""A bundle's forms: the same model with its backbone in another precision.

The int8 form of a bundle in folder NAME is the backbone of a bundle NAME-int8 that says it was
made from this one's. It is looked for where originals are: among bundles pulled, shipped, and
beside the bundle itself.
"""

from dataclasses import replace

from engine.bundle.model_bundle import MANIFEST, ModelBundle
from engine.errors import BundleError
from engine.files.cache import bundles_dir, shipped_dir


def int8_name(bundle: ModelBundle) -> str:
    """What the bundle that holds the int8 form is called."""
    return f"{bundle.path.resolve().name}-int8"


def int8_form_of(bundle: ModelBundle) -> ModelBundle | None:
    """The bundle with its backbone in int8, all else as it is; None: there is no such form here.

    Raises:
        BundleError: What lies there is damaged, or the form of another model.
    """
    if bundle.card.precision == "int8":
        return bundle
    name, problem = int8_name(bundle), ""
    for folder in (bundles_dir(), shipped_dir(), bundle.path.resolve().parent):
        if not (folder / name / MANIFEST).is_file():
            continue
        try:
            found = ModelBundle.load(folder / name)
        except BundleError as error:
            problem = str(error)
            continue
        if found.card.precision == "int8" and _is_made_from(found, bundle):
            return _with_backbone_of(bundle, found)
        problem = f"{found.path} is not the int8 form of {bundle.path}: convert that one again"
    if problem:
        raise BundleError(problem)
    return None


def in_precision(bundle: ModelBundle, precision: str) -> tuple[ModelBundle, str]:
    """What OpenVINO runs for a precision that a person names.

    Args:
        bundle: As it is configured.
        precision: ``f32``, ``bf16`` or ``int8``.

    Returns:
        The bundle or its int8 form, and the arithmetic for whatever is not int8 in its files.

    Raises:
        BundleError: int8 is wanted, and there is no such form here.
    """
    if precision != "int8":
        return bundle, precision
    form = int8_form_of(bundle)
    if form is None:
        raise BundleError(
            f"precision is int8, but bundle {bundle.name} has no int8 form {int8_name(bundle)} "
            f"here: s2netd models pull {bundle.name} makes it if the bundle is shipped, else "
            "s2net convert does"
        )
    return form, "f32"


def _is_made_from(found: ModelBundle, bundle: ModelBundle) -> bool:
    return found.original is not None and found.original.sha256 == bundle.backbone_sha256


def _with_backbone_of(bundle: ModelBundle, found: ModelBundle) -> ModelBundle:
    return replace(
        bundle,
        card=replace(bundle.card, precision="int8"),
        backbone_path=found.backbone_path,
        backbone_sha256=found.backbone_sha256,
        backbone_model=found.backbone_model,
        original=found.original,
    )
