"""A place for a new bundle."""

import os
from pathlib import Path

from engine.bundle.model_bundle import check_bundle_folder
from engine.errors import DataError


def make_room(out: Path) -> None:
    """Make sure that a bundle can be written, before minutes are spent on it.

    Args:
        out: The bundle's folder to be; folders above it are made.

    Raises:
        BundleError: It holds what is no part of a bundle and would be lost.
        DataError: It cannot be written.
    """
    check_bundle_folder(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}") from error
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise DataError(f"{out} cannot be written: no permission to write in {out.parent}")
