"""What a verification found, and whether that is within the tolerance."""

from dataclasses import asdict, dataclass

import numpy as np

from engine.judging.agreement import Agreement
from engine.spec import Tolerance
from engine.types import Float64Array, FloatArray

FEATURES = "features"
SCORES = "scores"
OUTPUTS = (FEATURES, "cas", "attention", SCORES, "video_scores")


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far one output of the candidate is from the reference's, over the golden set.

    Attributes:
        output: ``features`` (a snippet's), ``cas``, ``attention``, ``scores`` (their product,
            what events are made of) or ``video_scores`` (a window's).
        n_compared: Snippets or windows.
        max_error: Largest absolute difference.
        mean_error: Mean absolute difference.
        cosine_min: Least cosine of a snippet's or window's two answers; 1 where both are zero.
        cosine_mean: Mean cosine.
    """

    output: str
    n_compared: int
    max_error: float
    mean_error: float
    cosine_min: float
    cosine_mean: float


class Tally:
    """Adds up one output's errors."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._largest: list[float] = []
        self._means: list[float] = []
        self._cosines: list[float] = []

    def add(self, wanted: FloatArray, seen: FloatArray) -> None:
        """Compare two finite arrays of one shape, which may be any, such as (D,) or (T, C)."""
        first, second = wanted.astype(np.float64).ravel(), seen.astype(np.float64).ravel()
        errors = np.abs(first - second)
        self._largest.append(float(errors.max(initial=0.0)))
        self._means.append(float(errors.mean()) if len(errors) else 0.0)
        self._cosines.append(cosine(first, second))

    def row(self) -> OutputError | None:
        """The sum; None where nothing was added."""
        if not self._largest:
            return None
        return OutputError(
            self._output,
            len(self._largest),
            max(self._largest),
            float(np.mean(self._means)),
            min(self._cosines),
            float(np.mean(self._cosines)),
        )


def cosine(first: Float64Array, second: Float64Array) -> float:
    """Cosine of two finite vectors (N,); exactly 1 if they are equal, 0 if just one is zero."""
    if np.array_equal(first, second):
        return 1.0
    # Scaled first: the square of a large or tiny number is no float.
    largest, other = np.abs(first).max(initial=0.0), np.abs(second).max(initial=0.0)
    if largest == 0 or other == 0:
        return 0.0
    one, two = first / largest, second / other
    return min(float(one @ two) / float(np.linalg.norm(one) * np.linalg.norm(two)), 1.0)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was compared, and what came of it.

    Attributes:
        reference: Model and backend.
        candidate: Model and backend.
        golden: What the golden set was.
        golden_sha256: SHA-256 of its snippets, in hex.
        n_snippets: Snippets that were compared.
        outputs: A row for each output that was compared.
        events: How well the events of both live trackers agree.
        tolerance: What is admitted.
        not_finite: Which answer of which side was NaN or infinite; None: none was.
    """

    reference: str
    candidate: str
    golden: str
    golden_sha256: str
    n_snippets: int
    outputs: tuple[OutputError, ...]
    events: Agreement
    tolerance: Tolerance
    not_finite: str | None = None

    @property
    def holds(self) -> bool:
        """May the candidate serve?"""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it may not: each limit, what was seen and what was wanted."""
        if self.not_finite is not None:
            return (self.not_finite,)
        features, scores = self.row(FEATURES), self.row(SCORES)
        if features is None or scores is None:
            return ("nothing was compared: the golden set is shorter than one snippet",)
        limits, seen = self.tolerance, []
        # Written so that a NaN is beyond every limit.
        if not features.cosine_min >= limits.feature_cosine_min:
            wanted = f"wanted at least {limits.feature_cosine_min:g}"
            seen.append(f"features: a snippet's cosine is {features.cosine_min:.6f}, {wanted}")
        if not scores.max_error <= limits.score_max_error:
            wanted = f"wanted at most {limits.score_max_error:g}"
            seen.append(f"scores: one is off by {scores.max_error:.6f}, {wanted}")
        if not (self.events.may_be_chance or self.events.f1 >= limits.event_f1_min):
            seen.append(f"{self.events.text}, wanted F1 of at least {limits.event_f1_min:g}")
        return tuple(seen)

    def row(self, output: str) -> OutputError | None:
        """The row of one output, if it was compared."""
        return next((row for row in self.outputs if row.output == output), None)

    def table(self) -> str:
        """Markdown: a row for each output, the events, and the verdict."""
        lines = [
            f"{self.candidate} against {self.reference}",
            "",
            f"on {self.golden}: {self.n_snippets} snippets, sha256 {self.golden_sha256[:12]}",
            "",
            "| output | compared | max abs error | mean abs error | least cosine | mean cosine |",
            "|---|---:|---:|---:|---:|---:|",
            *(_line(row) for row in self.outputs),
            "",
            self.events.text,
            "",
            self._verdict,
        ]
        return "\n".join(lines)

    @property
    def _verdict(self) -> str:
        if not self.holds:
            return f"does not hold: {'; '.join(self.reasons)}"
        if self.candidate == self.reference:
            return "holds, but both sides are the same: name another backend, precision or bundle"
        return "holds"

    def to_json(self) -> dict[str, object]:
        """Plain values, for ``--json``, logs and status pages."""
        return {
            "holds": self.holds,
            "reasons": list(self.reasons),
            **asdict(self),
            "outputs": [asdict(row) for row in self.outputs],
            "events": {**asdict(self.events), "f1": self.events.f1},
        }


def _line(row: OutputError) -> str:
    errors = f"{row.max_error:.2e} | {row.mean_error:.2e}"
    return (
        f"| {row.output} | {row.n_compared} | {errors} | {row.cosine_min:.6f} | "
        f"{row.cosine_mean:.6f} |"
    )
