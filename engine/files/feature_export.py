"""Features that a daemon has logged, as files: what `s2netd features export` hands to training.

A folder has ``export.json``, which lists its parts, and an npz for each: ``vectors`` float16
(N, D), ``indices`` int64 (N,), the snippets' places on the grid of their run, and ``starts_us``
int64 (N,), the Unix time of each snippet's first frame. Rows of a part are in order, and those of
missing footage are missing. Nothing here unpickles.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import DataError
from engine.files.npz import NPZ_DAMAGE
from engine.types import Int64Array

LISTING = "export.json"

_VERSION = 1
_N_DIMENSIONS = 2  # rows, feature width


@dataclass(frozen=True, slots=True, eq=False)
class ExportedPart:
    """Features of one run of a camera, or some of them.

    Attributes:
        camera: The camera.
        run: The producer's run; indices of two runs cannot be compared, times can.
        feature_id: Names what made them; see ``ModelBundle.feature_id``.
        indices: int64 (N,), N >= 1, rising.
        starts_us: int64 (N,), Unix time in microseconds.
        vectors: float16 (N, D).
    """

    camera: str
    run: str
    feature_id: str
    indices: Int64Array
    starts_us: Int64Array
    vectors: npt.NDArray[np.float16]


class ExportWriter:
    """Writes the parts of a folder, and at the end what lists them.

    Args:
        folder: It is there, and holds no export.

    Raises:
        DataError: It holds one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: list[dict[str, object]] = []
        if (folder / LISTING).exists():
            raise DataError(f"{folder} holds an export already: choose another --out")

    def add(self, part: ExportedPart) -> None:
        """Write one part.

        Raises:
            OSError: It cannot be written.
        """
        name = f"{len(self._listed):05d}.npz"
        with (self._folder / name).open("wb") as file:
            np.savez(file, indices=part.indices, starts_us=part.starts_us, vectors=part.vectors)
        self._listed.append(
            {
                "file": name,
                "camera": part.camera,
                "run": part.run,
                "feature_id": part.feature_id,
                "rows": len(part.indices),
            }
        )

    def finish(self) -> None:
        """Write the list; without it, the folder is no export.

        Raises:
            OSError: It cannot be written.
        """
        plain = {"version": _VERSION, "parts": self._listed}
        (self._folder / LISTING).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def read_export(folder: Path, camera: str | None = None) -> Iterator[ExportedPart]:
    """The parts of an export, in the order of the log; one at a time is in memory.

    Args:
        folder: The export.
        camera: Only this camera's; None: all.

    Raises:
        DataError: It is none, or a file of it is damaged.
    """
    for listed in _listing(folder):
        if camera is None or listed["camera"] == camera:
            yield _part(folder, listed)


def exported_cameras(folder: Path) -> tuple[str, ...]:
    """The cameras of an export.

    Raises:
        DataError: It is none.
    """
    return tuple(sorted({listed["camera"] for listed in _listing(folder)}))


def _listing(folder: Path) -> list[dict[str, str]]:
    path = folder / LISTING
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["version"] != _VERSION:
            raise DataError(f"{path}: version is {plain['version']!r}, wanted {_VERSION}")
        keys = ("file", "camera", "run", "feature_id")
        return [{key: str(part[key]) for key in keys} for part in plain["parts"]]
    except OSError as error:
        raise DataError(
            f"{folder} has no {LISTING}: give the folder that s2netd features export wrote"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error!r:.80}): export again") from error


def _part(folder: Path, listed: dict[str, str]) -> ExportedPart:
    path = folder / Path(listed["file"]).name  # whatever is listed, only files of this folder
    try:
        # NumPy leaves a file open that it opened and could not read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            indices, starts_us, vectors = (
                archive[name] for name in ("indices", "starts_us", "vectors")
            )
    except NPZ_DAMAGE as error:
        raise DataError(f"{path} is damaged ({error!r:.80}): export again") from error
    n_rows = len(indices)
    is_sound = (
        indices.dtype == starts_us.dtype == np.int64
        and indices.shape == starts_us.shape == (n_rows,)
        and vectors.dtype == np.float16
        and vectors.ndim == _N_DIMENSIONS
        and n_rows == len(vectors) > 0
        and bool((np.diff(indices) > 0).all())
    )
    if not is_sound:
        raise DataError(f"{path}: its arrays do not fit together: export again")
    return ExportedPart(
        listed["camera"], listed["run"], listed["feature_id"], indices, starts_us, vectors
    )
