"""The one folder outside a checkout that this project writes: ``$XDG_CACHE_HOME/s2netd``."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Root of the cache; it may not exist yet.

    As the XDG base directory specification says, a relative ``XDG_CACHE_HOME`` is ignored.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache"
    return root / "s2netd"


def bundles_dir() -> Path:
    """Where pulled bundles lie, one folder each."""
    return cache_dir() / "bundles"


def shipped_dir() -> Path:
    """Where the bundles lie that come with this package, one folder each."""
    return Path(__file__).parent.parent / "bundles"
