"""Does a candidate (backend, precision or bundle) find the same events as the reference?

Both sides see the same golden snippets and are run as in service: each one's localizer gets its
own features, each one's session its own scores, and its live tracker decides its events. Numbers
are compared on the way, events at the end of each clip.

A daemon verifies between the batches of its cameras, so the work comes in small steps:

    verifier = Verifier(reference, candidate, golden, spec, tolerance)
    for step in verifier.steps():
        step.run()  # step.side says whose device is needed
    verification = verifier.result()
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Literal

import numpy as np

from engine.backends.profiles import batch_sizes_up_to
from engine.errors import BundleError
from engine.judging.agreement import agreement
from engine.spec import ModelSpec, Tolerance
from engine.types import (
    ActionEvent,
    CasWindow,
    FloatArray,
    Snippet,
)
from engine.verification.footage import GoldenClip, GoldenSet
from engine.verification.report import FEATURES, OUTPUTS, SCORES, Tally, Verification
from engine.verification.side import Networks, Side, SideRun

_ALIKE = ("class_names", "feature_dim", "grid", "geometry", "window")
_CPU_ROWS = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One call of one side's networks; must be run before the next step is taken.

    Attributes:
        side: Whose networks it uses. A daemon runs the candidate's on its device thread and the
            reference's, which are on the CPU, anywhere else.
        run: Makes the call; to be called once.
    """

    side: Side
    run: Callable[[], None]


def sizes_to_try(backend: str, max_batch: int) -> tuple[int, ...]:
    """Batch sizes to try a candidate with, the largest first, because footage may be short.

    TensorRT has kernels of its own for each size. On a CPU rows run side by side or alone at any
    size, and cameras wait for each step, so the sizes end at eight.

    Args:
        backend: As of ``open_backend``.
        max_batch: Rows that calls may have, >= 1.
    """
    most = max_batch if backend == "tensorrt" else min(max_batch, _CPU_ROWS)
    return batch_sizes_up_to(most)[::-1]


class Verifier:
    """Compares two pairs of networks, step by step.

    Args:
        reference: What is right.
        candidate: What is to serve.
        golden: What both are shown.
        spec: The reference's model: what decides its events.
        tolerance: What is admitted; None: the default.
        candidate_spec: The candidate's, where it is another bundle; None: ``spec``.
        class_indices: Classes whose events count; None means all.
        batch_sizes: Snippets in a backbone call of the candidate, one size after the other, so
            that a backend with a kernel for each is tried with all of them. The reference is
            asked snippet by snippet.

    Raises:
        BundleError: The two models are not about the same classes, grid, geometry or width, or a
            network does not keep the contract.
    """

    def __init__(
        self,
        reference: Networks,
        candidate: Networks,
        golden: GoldenSet,
        spec: ModelSpec,
        tolerance: Tolerance | None = None,
        *,
        candidate_spec: ModelSpec | None = None,
        class_indices: frozenset[int] | None = None,
        batch_sizes: tuple[int, ...] = (1,),
    ) -> None:
        other = spec if candidate_spec is None else candidate_spec
        check_alike(spec, other)
        self._sides = (
            SideRun("reference", reference, spec, class_indices),
            SideRun("candidate", candidate, other, class_indices),
        )
        self._golden = golden
        self._tolerance = tolerance or Tolerance()
        self._batch_sizes = cycle(batch_sizes)
        self._tallies = {name: Tally(name) for name in OUTPUTS}
        self._events: list[tuple[tuple[ActionEvent, ...], tuple[ActionEvent, ...]]] = []
        self._digest = hashlib.sha256()
        self._n_done = 0
        self._state: Literal["fresh", "at work", "done"] = "fresh"

    @property
    def n_snippets(self) -> int:
        """About how many snippets there are, for progress."""
        return self._golden.n_snippets

    @property
    def n_done(self) -> int:
        """Snippets both sides have answered."""
        return self._n_done

    def steps(self) -> Iterator[Step]:
        """All the work, in order. Stops early where a side gives NaN or infinity.

        Taking a step may decode footage; running it raises what the backends raise
        (``DeviceError``).

        Raises:
            RuntimeError: The step before was not run, or the verifier was used before.
        """
        if self._state != "fresh":
            raise RuntimeError("a verifier is used once")
        self._state = "at work"
        for clip in self._golden.clips:
            yield from self._clip_steps(clip)
            if self._not_finite is not None:
                break
        self._state = "done"

    def result(self) -> Verification:
        """What was found, once ``steps`` is exhausted.

        Raises:
            RuntimeError: There is work left.
        """
        if self._state != "done":
            raise RuntimeError("a verification has no result before its last step")
        rows = (tally.row() for tally in self._tallies.values())
        reference, candidate = self._sides
        return Verification(
            reference=reference.description,
            candidate=candidate.description,
            golden=self._golden.about,
            golden_sha256=self._digest.hexdigest(),
            n_snippets=self._n_done,
            outputs=tuple(row for row in rows if row is not None),
            events=agreement(self._events),
            tolerance=self._tolerance,
            not_finite=self._not_finite,
        )

    @property
    def _not_finite(self) -> str | None:
        seen = (side.not_finite for side in self._sides)
        return next((what for what in seen if what is not None), None)

    def _clip_steps(self, clip: GoldenClip) -> Iterator[Step]:
        reference, candidate = self._sides
        for side in self._sides:
            side.begin(clip.camera)
        snippets = clip.snippets()
        while group := list(islice(snippets, next(self._batch_sizes))):
            for snippet in group:
                self._take_digest(clip, snippet)
                yield from _step(reference, [snippet])
            yield from _step(candidate, group)
            self._compare()
            if self._not_finite is not None:
                return
            self._n_done += len(group)
        for side in self._sides:
            yield from _step(side, None)
        self._compare()
        self._events.append((reference.events, candidate.events))

    def _take_digest(self, clip: GoldenClip, snippet: Snippet) -> None:
        place = f"{clip.camera} {snippet.segment} {snippet.index} {snippet.rgb.shape}\n"
        self._digest.update(place.encode("utf-8", "surrogatepass"))
        self._digest.update(np.ascontiguousarray(snippet.rgb).data)

    def _compare(self) -> None:
        (wanted, wanted_windows), (seen, seen_windows) = (side.take() for side in self._sides)
        if self._not_finite is not None:
            return
        for one, other in zip(wanted, seen, strict=True):
            self._tallies[FEATURES].add(one.vector, other.vector)
        for before, after in zip(wanted_windows, seen_windows, strict=True):
            ours, theirs = _answers(before), _answers(after)
            for name, array in ours.items():
                self._tallies[name].add(array, theirs[name])


def _step(run: SideRun, snippets: Sequence[Snippet] | None) -> Iterator[Step]:
    n_wanted = run.n_runs + 1
    yield Step(run.side, partial(run.run, snippets))
    if run.n_runs < n_wanted:
        raise RuntimeError(f"a step of the {run.side} was not run")


def _answers(window: CasWindow) -> dict[str, FloatArray]:
    """(N, C), (N,), (N, C) and (C,) by output's name, for the N snippets that were seen."""
    cas, attention = window.cas[window.valid], window.attention[window.valid]
    return {
        "cas": cas,
        "attention": attention,
        SCORES: cas * attention[:, None],
        "video_scores": window.video_scores,
    }


def check_alike(reference: ModelSpec, candidate: ModelSpec) -> None:
    """Can two models be compared, snippet by snippet and class by class?

    Raises:
        BundleError: They cannot; the message says what differs.
    """
    for what in _ALIKE:
        wanted, seen = getattr(reference, what), getattr(candidate, what)
        if wanted != seen:
            raise BundleError(
                f"{candidate.model_id} cannot be compared with {reference.model_id}: its {what} "
                f"is {seen!s:.200}, wanted {wanted!s:.200}"
            )


def verify(
    reference: Networks,
    candidate: Networks,
    golden: GoldenSet,
    spec: ModelSpec,
    tolerance: Tolerance | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    candidate_spec: ModelSpec | None = None,
    class_indices: frozenset[int] | None = None,
    batch_sizes: tuple[int, ...] = (1,),
) -> Verification:
    """All steps of a ``Verifier``, here and now.

    Args:
        reference: See ``Verifier``.
        candidate: See ``Verifier``.
        golden: See ``Verifier``.
        spec: See ``Verifier``.
        tolerance: See ``Verifier``.
        on_progress: Told how many snippets are done, of about how many.
        candidate_spec: See ``Verifier``.
        class_indices: See ``Verifier``.
        batch_sizes: See ``Verifier``.

    Raises:
        BundleError: See ``Verifier``.
        DeviceError: A runtime failed.
    """
    verifier = Verifier(
        reference,
        candidate,
        golden,
        spec,
        tolerance,
        candidate_spec=candidate_spec,
        class_indices=class_indices,
        batch_sizes=batch_sizes,
    )
    n_told = 0
    for step in verifier.steps():
        step.run()
        if verifier.n_done > n_told:
            n_told = verifier.n_done
            on_progress(n_told, verifier.n_snippets)
    return verifier.result()


__all__ = ["Networks", "Side", "Step", "Verification", "Verifier", "check_alike", "verify"]
