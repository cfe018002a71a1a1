"""Where the work on a partition goes on, from what its last owner and its log say. Pure."""

from dataclasses import dataclass

from daemon.journal.base import Past


@dataclass(frozen=True, slots=True)
class Takeover:
    """How a partition is taken over.

    Attributes:
        next_offset: Everything below it is done.
        first_offset: From which to read; lower where a camera needs frames again.
        known_offset: What of ``next_offset`` comes from an owner before; 0: nothing does.
        is_log_new: The log was made anew under its name, and what the last owner left is of
            another one.
        is_behind: Others of the group have done more than the journal knows.
    """

    next_offset: int
    first_offset: int
    known_offset: int
    is_log_new: bool = False
    is_behind: bool = False

    @property
    def is_past_over(self) -> bool:
        """True if cameras cannot go on with what the last owner left of them."""
        return self.is_log_new or self.is_behind


def take_over(
    past: Past, *, fallback: int, oldest: int, committed: int | None, log_id: str
) -> Takeover:
    """Where to go on.

    Args:
        past: What the last owner left.
        fallback: The offset to begin at where nothing is known.
        oldest: The log's oldest offset.
        committed: What the group has committed, where the journal is of this host alone: it does
            not know what others of the group have done since.
        log_id: Tells this log from one made anew under its name; empty where nobody knows.
    """
    if past.log_id and log_id and past.log_id != log_id:
        return Takeover(oldest, oldest, 0, is_log_new=True)
    known = past.next_offset
    if known is None:
        return Takeover(fallback, past.first_offset(fallback), 0)
    if committed is not None and committed > known:
        return Takeover(committed, committed, committed, is_behind=True)
    return Takeover(known, past.first_offset(known), known)


def is_other_model(before: str, now: str) -> bool:
    """True if another model on another host has served a partition: they may share one group.

    Both are ``MODEL@VERSION on HOST``.
    """
    (model, _, host), (my_model, _, my_host) = before.partition(" on "), now.partition(" on ")
    return model.partition("@")[0] != my_model.partition("@")[0] and host != my_host
