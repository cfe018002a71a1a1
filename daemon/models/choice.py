"""Which precision to take, from what was measured: the fastest that is admitted. Pure.

Timings have noise, and a machine has other work. So a more exact precision is preferred unless
another one gains clearly: more than a tenth of the time, and more than a millisecond a snippet.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

EXACTNESS = ("f32", "bf16", "int8")  # the most exact first

MARGIN = 0.1
LEAST_GAIN_MS = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``precision: auto`` came to.

    Attributes:
        precision: What is taken.
        milliseconds: Time of a snippet by precision, the most exact first; empty: there was
            nothing to choose from.
        refused: Why others are left out, by precision.
        is_kept: It was measured before, and kept.
    """

    precision: str
    milliseconds: Mapping[str, float]
    refused: Mapping[str, str]
    is_kept: bool

    @property
    def text(self) -> str:
        """What was chosen and why, in one line for people."""
        left_out = "".join(f"; {name} is left out: {why}" for name, why in self.refused.items())
        if not self.milliseconds:
            return f"{self.precision}, the only one here{left_out}"
        times = ", ".join(f"{name} {ms:.1f}" for name, ms in self.milliseconds.items())
        when = "measured before" if self.is_kept else "measured now"
        return f"{self.precision}, {self._why}: {times} ms a snippet, {when}{left_out}"

    @property
    def _why(self) -> str:
        admitted = {n: ms for n, ms in self.milliseconds.items() if n not in self.refused}
        fastest = min(admitted, key=lambda name: admitted[name])
        if fastest == self.precision:
            return "the fastest"
        return f"as {fastest}, which is less exact, gains too little"


def choose(milliseconds: Mapping[str, float], refused: Collection[str]) -> str | None:
    """The most exact precision that no other beats clearly; None: all are refused.

    Args:
        milliseconds: Time of a snippet by precision, the most exact first.
        refused: Those that are not admitted, and why.
    """
    admitted = {name: ms for name, ms in milliseconds.items() if name not in refused}
    if not admitted:
        return None
    fastest = min(admitted.values())
    limit = max(fastest * (1 + MARGIN), fastest + LEAST_GAIN_MS)
    return next(name for name, ms in admitted.items() if ms <= limit)
