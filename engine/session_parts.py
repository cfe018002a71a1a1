"""Parts of a session out of what its snapshot says; whatever is wrong raises ``ValueError``."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.camera_mean import CameraMeanState
from engine.economy import Economy, EconomyState
from engine.events import event_from_json
from engine.spec import EconomySpec
from engine.types import ActionEvent, FloatArray, SnippetFeature


def wanted_rows(
    wanted: range, segment: int, features: Iterable[SnippetFeature], feature_dim: int
) -> FloatArray:
    """The wanted features of a segment, float32 (N, D).

    Raises:
        ValueError: One is missing, or of another width.
    """
    found = {one.index: one.vector for one in features if one.segment == segment}
    missing = [index for index in wanted if index not in found]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(wanted)} features are missing, the first is {missing[0]}"
        )
    rows = np.zeros((len(wanted), feature_dim), np.float32)
    for row, index in enumerate(wanted):
        if found[index].shape != (feature_dim,):
            raise ValueError(f"feature {index} is {found[index].shape}, wanted ({feature_dim},)")
        rows[row] = found[index]
    return rows


def stored_features(
    first_index: int, segment: int, rows: npt.NDArray[Any]
) -> list[SnippetFeature]:
    """The features (N, D) of an older snapshot, rounded as those that are made now."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = rows.astype(np.float16).astype(np.float32)
    return [SnippetFeature(first_index + n, segment, row) for n, row in enumerate(rounded)]


def economy_of(
    meta: dict[str, Any],
    arrays: dict[str, npt.NDArray[Any]],
    spec: EconomySpec,
    features: Sequence[SnippetFeature],
) -> Economy:
    """The economy of a snapshot; older snapshots have none, and then the next snippet is seen."""
    if "economy" not in meta:
        return Economy(spec)
    state = EconomyState.from_json(meta["economy"], arrays.get("gate"))
    next_index = meta["sampler"][0]
    if state.waiting and state.waiting[-1] + 1 != next_index:
        raise ValueError(f"snippets up to {state.waiting[-1]} wait, and {next_index} comes next")
    return Economy(spec, state, features[-1] if features else None)


def owed_of(meta: dict[str, Any]) -> tuple[ActionEvent, ...]:
    """The revisions that were left to be published; in snapshots of before alone."""
    return tuple(event_from_json(plain) for plain in meta.get("owed", ()))


def camera_mean_state(
    meta: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]
) -> CameraMeanState | None:
    """The camera mean (D,) of a snapshot; None where its model had none."""
    if meta["background"] is None:
        return None
    return CameraMeanState(arrays["background"], meta["background"])
