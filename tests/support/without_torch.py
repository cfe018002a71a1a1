"""Runs pytest as where torch is not installed: python -m tests.support.without_torch ARGUMENTS.

A module that is set to None would do for imports, but not for whoever asks whether there is one.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


class _Hidden:
    """Finds all that ``PathFinder`` finds but torch; no function, which classes would bind."""

    def __init__(self, find: Any) -> None:
        self._find = find

    def __call__(self, name: str, *place: Any) -> ModuleSpec | None:
        found: ModuleSpec | None = self._find(name, *place)
        return None if name.partition(".")[0] == "torch" else found


if __name__ == "__main__":
    PathFinder.find_spec = _Hidden(PathFinder.find_spec)  # type: ignore[method-assign, assignment]
    import pytest

    sys.exit(pytest.main(sys.argv[1:]))
