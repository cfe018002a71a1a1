"""What cameras ask of the device, and what one call answers. Pure."""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

# A chunk of a live camera has two or three snippets, and a turn takes them all. With shorter turns
# all cameras would finish their chunks late, at about the same time.
TURN_SIZE = 4


class Lane(Enum):
    """The two kinds of work; a camera's items stay in order within each."""

    SNIPPETS = "backbone"
    WINDOWS = "localizer"


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The limits by which items share calls.

    Attributes:
        max_size: Most items in one call, >= 1.
        max_wait_s: Seconds that an item may wait for others while the device is free, >= 0.
        turn_size: Most items of one camera before it is another camera's turn, >= 1.
    """

    max_size: int
    max_wait_s: float = 0.0
    turn_size: int = TURN_SIZE

    def __post_init__(self) -> None:
        if self.max_size < 1 or self.turn_size < 1:
            raise ValueError(
                f"max_size is {self.max_size} and turn_size {self.turn_size}, wanted 1 or more"
            )
        if not 0 <= self.max_wait_s < float("inf"):
            raise ValueError(f"max_wait_s is {self.max_wait_s}, wanted 0 or more")


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Items of one camera that want to go through one network.

    Attributes:
        lane: The kind of work.
        camera: The camera that the items are of.
        group: What must be equal for items to share a call: the network, and the items' shapes.
        n_items: How many items, >= 1.
        arrived_s: When the request was made, in seconds on the device's clock.
        deadline_s: When the camera will have its next snippet, on the same clock. It decides only
            which camera is first in a round.
    """

    lane: Lane
    camera: str
    group: Hashable
    n_items: int
    arrived_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a request: ``n_items`` of its items, beginning with number ``first``."""

    request: Request
    first: int
    n_items: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One call: pieces of requests of one group, one for each request, in the order of rows."""

    lane: Lane
    pieces: tuple[Piece, ...]

    @property
    def n_items(self) -> int:
        """How many items, and so rows, the call has."""
        return sum(piece.n_items for piece in self.pieces)
