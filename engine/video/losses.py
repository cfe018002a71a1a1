"""How much of a video is left out, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.errors import LostFootageError

_MOST_REASONS = 64  # that are told apart
_MOST_TOLD = 5
_OTHER = "other reasons"


@dataclass(slots=True)
class Losses:
    """What was left out of one video so far; it takes the same room however much that is.

    Attributes:
        n_parts: Stretches of which no picture is shown.
        lost_s: How long these last together.
        shown_s: How long what is shown lasts.
        n_late: Pictures that were left out because their time did not rise.
        reasons: Seconds by reason.
    """

    n_parts: int = 0
    lost_s: float = 0
    shown_s: float = 0
    n_late: int = 0
    reasons: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """How much of the video was left out, 0..1."""
        length_s = self.shown_s + self.lost_s
        return self.lost_s / length_s if length_s else 0.0

    def add(self, reason: str, lasts_s: float) -> None:
        """One more part was left out."""
        self.n_parts += 1
        self.lost_s += lasts_s
        is_room = reason in self.reasons or len(self.reasons) < _MOST_REASONS
        key = reason if is_room else _OTHER
        self.reasons[key] = self.reasons.get(key, 0) + lasts_s

    @property
    def told(self) -> str:
        """How much, and for which reasons, the dearest first; empty if nothing was left out."""
        told = []
        if self.n_parts:
            dearest = sorted(self.reasons.items(), key=lambda one: one[1], reverse=True)
            reasons = [f"{reason} ({lost_s:.1f} s)" for reason, lost_s in dearest[:_MOST_TOLD]]
            told.append(
                f"{self.lost_s:.1f} s ({self.share:.1%}) in {self.n_parts} parts were left out: "
                + ", ".join(reasons)
            )
        if self.n_late:
            told.append(f"{self.n_late} pictures were left out, for their time did not rise")
        return "; ".join(told)


def check_losses(of_videos: Mapping[str, Losses], most: float) -> None:
    """Refuse to call it a success if too much of a video was left out.

    Args:
        of_videos: Each video's losses, by name.
        most: The share of a video that may be left out, 0..1.

    Raises:
        LostFootageError: More of a video was.
    """
    lossy = [f"{name}: {losses.told}" for name, losses in of_videos.items() if losses.share > most]
    if lossy:
        head = f"more than {most:.0%} was left out of {len(lossy)} of {len(of_videos)} videos:"
        raise LostFootageError("\n  ".join((head, *lossy)))
