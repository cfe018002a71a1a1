"""Snippets → those that the backbone must look at; its answers → features of all snippets. Pure.

A rung of the ladder says how many snippets are looked at. ``full`` looks at each. ``half`` looks
at every second one, and the features between two looks are interpolated, so they come with the
later look: up to a stride later than they would. ``quarter`` looks at every fourth, and
``gated`` at every fourth if something moves. On any rung a motion gate may spare the looks at
what stands still: such a snippet has the feature of the last look.

Which snippets are looked at follows from their numbers and pictures alone, and so the same
features come out however the footage was cut into chunks. Where a segment begins, its first
snippet is looked at; where it ends, those that wait for the next look get the last look's feature.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.motion import TURN, GateState, MotionGate, Sight
from engine.rounding import as_logged
from engine.spec import EconomySpec, Rung
from engine.types import FloatArray, Int64Array, Snippet, SnippetFeature


@dataclass(frozen=True, slots=True)
class EconomyState:
    """What an economy needs to go on, apart from the newest feature.

    Attributes:
        waiting: Indices of the snippets that wait for the next look; they lie side by side.
        segment: Their segment, and that of the newest snippet.
        has_moved: Something moved in one of them.
        gate: The gate's state; None: it has never been asked.
    """

    waiting: tuple[int, ...]
    segment: int | None
    has_moved: bool
    gate: GateState | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a snapshot, which keeps the gate's planes as an array."""
        plain: dict[str, Any] = {"waiting": list(self.waiting), "segment": self.segment}
        if self.gate is not None:
            plain["gate"] = self.gate.to_json()
        return plain | {"moved": self.has_moved}

    @classmethod
    def from_json(cls, plain: object, planes: npt.NDArray[Any] | None) -> "EconomyState":
        """The inverse of ``to_json``, with the gate's planes, if there are any.

        Raises:
            TypeError, ValueError: It is no state.
        """
        if not isinstance(plain, dict):
            raise TypeError(f"an economy is {plain!r}, wanted keys and values")
        waiting, segment = plain["waiting"], plain["segment"]
        if not isinstance(waiting, list) or any(type(index) is not int for index in waiting):
            raise ValueError(f"snippets that wait are {waiting!r}, wanted whole numbers")
        if segment is not None and type(segment) is not int:
            raise ValueError(f"an economy's segment is {segment!r}, wanted a whole number")
        gate = GateState.from_json(plain["gate"], planes) if "gate" in plain else None
        return cls(tuple(waiting), segment, plain["moved"] is True, gate)


class _Step(Enum):
    LOOK = "look"
    REUSE = "reuse"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class _Planned:
    index: int
    segment: int
    step: _Step
    sight: Sight | None = None


class Economy:
    """One camera's choice of what to look at.

    Args:
        spec: What may be spared.
        state: Where an earlier economy stopped.
        newest: The newest feature that it gave.

    Raises:
        ValueError: The snippets that wait do not follow the newest feature.

    Attributes:
        rung: Where it is on the ladder; a change counts from the next snippet on.
        n_reused: Snippets that were not looked at because nothing moved.
        n_interpolated: Snippets whose features lie between those of two looks.
    """

    def __init__(
        self,
        spec: EconomySpec,
        state: EconomyState | None = None,
        newest: SnippetFeature | None = None,
    ) -> None:
        self.rung = spec.rung
        self.n_reused = 0
        self.n_interpolated = 0
        self._spec = spec
        self._newest = newest
        self._waiting = deque(state.waiting if state else ())
        is_known = state is not None and newest is not None and newest.segment == state.segment
        self._segment = state.segment if state and is_known else None
        after = newest.index + 1 if newest and is_known else 0
        if self._waiting and list(self._waiting) != list(range(after, after + len(self._waiting))):
            raise ValueError(f"snippets {list(self._waiting)} wait, wanted those from {after} on")
        self._has_moved = state.has_moved if state else False
        self._gate = MotionGate(spec.look_every, state.gate if state else None)
        self._plan: deque[_Planned] = deque()

    def retune(self, spec: EconomySpec) -> None:
        """Go on under other rules."""
        self._spec, self.rung = spec, spec.rung
        self._gate = MotionGate(spec.look_every, self._gate.state)

    @property
    def state(self) -> EconomyState:
        """What must be kept to go on later; ask between ``fill`` and ``choose``."""
        gate = self._gate.state if self._gate.has_seen else None
        return EconomyState(tuple(self._waiting), self._segment, self._has_moved, gate)

    @property
    def first_waiting(self) -> int | None:
        """The oldest snippet that has no feature yet."""
        return self._waiting[0] if self._waiting else None

    def parts(self, snippets: Sequence[Snippet]) -> list[list[Snippet]]:
        """Snippets, in order → those that may be chosen from at once: a gate learns in turns."""
        turns = groupby(snippets, lambda one: one.index // TURN if self._is_gated else 0)
        return [list(turn) for _, turn in turns]

    def choose(self, snippets: Sequence[Snippet]) -> list[Snippet]:
        """Take the next snippets, in order; give those to look at. ``fill`` must follow.

        Args:
            snippets: One of the ``parts``.
        """
        planned = [self._planned(snippet) for snippet in snippets]
        self._plan.extend(planned)
        pairs = zip(snippets, planned, strict=True)
        return [snippet for snippet, plan in pairs if plan.step is _Step.LOOK]

    def fill(self, looks: Sequence[SnippetFeature]) -> list[SnippetFeature]:
        """The features of what was chosen → those of all snippets up to the newest look, in order.

        Args:
            looks: A float32 (D,) vector for each snippet that ``choose`` has given.
        """
        left = deque(looks)
        features: list[SnippetFeature] = []
        while self._plan:
            planned = self._plan.popleft()
            if self._newest is not None and planned.segment != self._newest.segment:
                features += self.flush()
            if planned.step is _Step.WAIT:
                self._waiting.append(planned.index)
                continue
            if planned.step is _Step.LOOK:
                feature = left.popleft()
                self._learn(planned, feature)
            else:
                feature = SnippetFeature(planned.index, planned.segment, self._last_vector)
                self.n_reused += 1
            features += self._between(feature)
            features.append(feature)
            self._newest = feature
        return features

    def flush(self) -> list[SnippetFeature]:
        """The segment ends: those that wait have the feature of the last look."""
        newest = self._newest
        self._newest = None
        if newest is None:
            return []
        held = [SnippetFeature(index, newest.segment, newest.vector) for index in self._waiting]
        self.n_interpolated += len(held)
        self._waiting.clear()
        return held

    def broke(self) -> None:
        """Footage is missing: what is waited for is dropped, and the next snippet is looked at."""
        self._newest = self._segment = None
        self._waiting.clear()

    @property
    def _is_gated(self) -> bool:
        return self._spec.is_gated or self.rung is Rung.GATED

    @property
    def _last_vector(self) -> FloatArray:
        if self._newest is None:
            raise AssertionError("a segment begins with a look")
        return self._newest.vector

    def _planned(self, snippet: Snippet) -> _Planned:
        index = snippet.index
        is_first = snippet.segment != self._segment
        if is_first:
            self._gate.broke()
            self._segment, self._has_moved = snippet.segment, False
        sight = self._gate.see(snippet.rgb, index) if self._is_gated else None
        is_still = sight is not None and not is_first and self._gate.is_still(sight, index)
        if not is_first and index % self.rung.every:
            self._has_moved |= not is_still
            return _Planned(index, snippet.segment, _Step.WAIT)
        is_still = is_still and not self._has_moved
        self._has_moved = False
        if is_still:
            return _Planned(index, snippet.segment, _Step.REUSE)
        if sight is None:
            self._gate.broke()  # what it compares with is not what was looked at last
        else:
            self._gate.looked(sight, index)
        return _Planned(index, snippet.segment, _Step.LOOK, sight)

    def _learn(self, planned: _Planned, feature: SnippetFeature) -> None:
        """Tell the gate what came of a look at what it has seen."""
        if planned.sight is None or self._newest is None:
            return
        before = self._newest.vector
        length = float(np.linalg.norm(before))
        if length > 0:
            distance = float(np.linalg.norm(feature.vector - before)) / length
            self._gate.learn(planned.sight, distance)

    def _between(self, later: SnippetFeature) -> list[SnippetFeature]:
        """Features of those that wait, on the straight line between two looks, as logged."""
        earlier = self._newest
        if not self._waiting or earlier is None:
            return []
        features = []
        for index in self._waiting:
            share = (index - earlier.index) / (later.index - earlier.index)
            vector = _on_line(earlier.vector, later.vector, share)
            features.append(SnippetFeature(index, earlier.segment, vector))
        self.n_interpolated += len(self._waiting)
        self._waiting.clear()
        return features


def _on_line(earlier: FloatArray, later: FloatArray, share: float) -> FloatArray:
    """The feature a ``share`` of the way from one look's (D,) to the next one's, as logged."""
    return as_logged((1 - share) * earlier + share * later)


def seen_on_rung(rows: FloatArray, indices: Int64Array, every: int) -> FloatArray:
    """What an economy makes of a stored segment if it looks at every ``every``-th snippet.

    Args:
        rows: float32 (T, D), the features of all snippets.
        indices: int64 (T,), their numbers, which rise. A gap ends a segment.
        every: As of a rung; 1 looks at all.

    Returns:
        float32 (T, D), to the bit what ``Economy`` gives.
    """
    seen = rows.copy()
    for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(indices) != 1) + 1):
        looks = run[(indices[run] % every == 0) | (run == run[:1])]
        for first, last in pairwise(looks.tolist()):
            for row in range(first + 1, last):
                seen[row] = _on_line(rows[first], rows[last], (row - first) / (last - first))
        if len(looks):
            seen[looks[-1] + 1 : run[-1] + 1] = rows[looks[-1]]
    return seen
