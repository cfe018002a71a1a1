"""A source's clock that steps → one that goes on: the law of discontinuities. Pure.

Cameras set their clocks, recorders put parts one behind the other, and counters of 32 or 33 bits
run over. A picture after such a step is shown where it would have been shown without it: as long
after the one before as pictures were apart. So time never goes back, and nothing is lost or
hidden where it would have.
"""

from collections import deque
from collections.abc import Callable
from fractions import Fraction
from statistics import median

STEPPED = "the source's clock stepped by {seconds:+.1f} s; stream time goes on from where it was"
# The spacing is that of so many pictures, for one that was late says nothing.
_N_SPACINGS = 5
# A stamp that is back by less than a picture trembles: by so much at the least, and at the most.
_LEAST_TREMBLE_S, _MOST_TREMBLE_S = Fraction(1, 25), Fraction(1, 10)
# In no codec does a picture wait for more others (see ``engine.video.fragments``).
_MOST_REORDERED = 16


class SteadyClock:
    """Ticks of one stream, packet by packet in the order of decoding.

    Args:
        tick_s: Seconds in a tick.
        spacing: Ticks from picture to picture, until it is known better.
        most_ahead: By how many ticks a picture may be later than the one before; None: by any,
            because the container's clock cannot run over.
        may_reorder: Pictures may be shown in another order than they are decoded.
        on_note: Told in a sentence about each step.
    """

    def __init__(
        self,
        tick_s: Fraction,
        spacing: Fraction,
        *,
        most_ahead: int | None,
        may_reorder: bool,
        on_note: Callable[[str], None],
    ) -> None:
        self._tick_s = tick_s
        self._most_ahead = most_ahead
        self._may_reorder = may_reorder
        self._on_note = on_note
        self._spacing = max(1, round(spacing))
        self._spacings: deque[int] = deque([self._spacing], maxlen=_N_SPACINGS)
        self._trembles = min(self._spacing, max(1, round(_LEAST_TREMBLE_S / tick_s)))
        self._most_trembles = max(1, round(_MOST_TREMBLE_S / tick_s))
        self._shift = 0
        self._latest: int | None = None  # when the last of all pictures is shown
        self._decoded: int | None = None  # when the newest packet is decoded, if it says so
        self._shown: deque[int] = deque(maxlen=_MOST_REORDERED + 1)  # the newest pictures

    def shift_for(self, shown: int, decoded: int | None, *, is_cut: bool) -> int:
        """What to add to a packet's ticks.

        Args:
            shown: When its picture is shown, as the source says.
            decoded: When it is decoded, as the source says; None: it does not say.
            is_cut: Nothing after it refers to, or is shown before, what came before it.
        """
        if self._latest is None:
            self._latest, self._decoded = shown, decoded
            return 0
        ahead = self._ahead(shown, decoded, self._latest, is_cut=is_cut)
        if self._is_step(ahead):
            seconds = float((ahead - self._spacing) * self._tick_s)
            self._on_note(STEPPED.format(seconds=seconds))
            self._shift += self._spacing - ahead
        elif ahead > 0:
            self._spacings.append(ahead)
            self._spacing = round(median(self._spacings))
        return self._taken(shown, decoded, self._latest, is_cut=is_cut)

    def _ahead(self, shown: int, decoded: int | None, latest: int, *, is_cut: bool) -> int:
        """By how much a packet is later than those before it; 0: that is not known."""
        ahead_of_all = shown + self._shift - latest
        if is_cut or not self._may_reorder:
            return ahead_of_all
        if decoded is not None and self._decoded is not None:
            return decoded + self._shift - self._decoded
        is_full = len(self._shown) == self._shown.maxlen
        is_behind = is_full and shown + self._shift < min(self._shown)
        is_far = self._most_ahead is not None and abs(ahead_of_all) > self._most_ahead
        return ahead_of_all if is_behind or is_far or ahead_of_all > 0 else 0

    def _is_step(self, ahead: int) -> bool:
        if self._most_ahead is not None and ahead > self._most_ahead:
            return True
        return ahead <= -min(max(self._spacing, self._trembles), self._most_trembles)

    def _taken(self, shown: int, decoded: int | None, latest: int, *, is_cut: bool) -> int:
        """The shift of a packet; one whose time trembles back is shown a tick after the others."""
        behind = latest - (shown + self._shift)
        must_rise = is_cut or not self._may_reorder
        nudge = behind + 1 if must_rise and behind >= 0 else 0
        self._latest = max(latest, shown + self._shift + nudge)
        self._shown.append(shown + self._shift + nudge)
        self._decoded = None if decoded is None else decoded + self._shift
        return self._shift + nudge
