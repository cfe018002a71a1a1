"""What follows from deliveries, one by one → the partition's next step. Pure."""

from dataclasses import dataclass, field

from daemon.journal.base import CameraState, CameraStatus, DeadLetter, FeatureRows, Step
from daemon.stream.ledger import Ledger
from engine.types import ActionEvent


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows from one delivery for its camera.

    Attributes:
        revisions: Revisions of events, in order.
        features: New features, in order.
        state: What the camera knows now; None: what it knew before.
        dead: The record, if it could not be used.
        is_forgotten: The camera is forgotten, with all it knew.
        status: How the camera is; None: that is not worth telling.
    """

    revisions: tuple[ActionEvent, ...] = ()
    features: tuple[FeatureRows, ...] = ()
    state: CameraState | None = None
    dead: tuple[DeadLetter, ...] = ()
    is_forgotten: bool = False
    status: CameraStatus | None = None

    @property
    def is_empty(self) -> bool:
        """True if nothing follows."""
        is_silent = not (self.revisions or self.features or self.dead)
        is_unchanged = self.state is None and not self.is_forgotten
        return is_silent and is_unchanged and self.status is None


@dataclass(slots=True)
class StepBuilder:
    """Gathers outcomes of one partition until they go into a step.

    Attributes:
        ledger: The partition's offsets in flight.
        number: The number of the last step.
        log_id: As in ``Step``.
        n_deliveries: How many finished deliveries wait for the next step.
        n_bytes: How many bytes of dead letters wait for it.
        has_revisions: A revision waits, so the step should not.
    """

    ledger: Ledger
    number: int
    log_id: str = ""
    n_deliveries: int = 0
    n_bytes: int = 0
    _revisions: list[ActionEvent] = field(default_factory=list)
    _features: list[FeatureRows] = field(default_factory=list)
    _states: dict[str, CameraState | None] = field(default_factory=dict)
    _dead: list[DeadLetter] = field(default_factory=list)
    _statuses: dict[str, CameraStatus] = field(default_factory=dict)
    _is_touched: bool = False

    @property
    def has_revisions(self) -> bool:
        """True if a revision waits, so that the step should not."""
        return bool(self._revisions)

    @property
    def is_empty(self) -> bool:
        """True if nothing waits."""
        return not self._is_touched

    def touch(self) -> None:
        """Let there be a next step even if nothing follows."""
        self._is_touched = True

    def add(self, camera: str, outcome: Outcome, offset: int | None = None) -> None:
        """Take in what follows for a camera.

        Args:
            camera: The camera.
            outcome: What follows.
            offset: The delivery that it follows from, which is finished then; None: it follows
                from none.
        """
        if offset is not None:
            self.ledger.finish(offset)
            self.n_deliveries += 1
        elif outcome.is_empty:
            return
        self._is_touched = True
        self._revisions.extend(outcome.revisions)
        self._features.extend(outcome.features)
        self._dead.extend(outcome.dead)
        self.n_bytes += sum(len(letter.payload) for letter in outcome.dead)
        if outcome.is_forgotten:
            self._states[camera] = None
        elif outcome.state is not None:
            self._states[camera] = outcome.state
        if outcome.status is not None:
            self._statuses[camera] = outcome.status

    def build(self, served_by: str = "") -> Step:
        """Everything that waits, as the next step; then nothing waits."""
        self.number += 1
        step = Step(
            number=self.number,
            next_offset=self.ledger.next_offset,
            log_id=self.log_id,
            served_by=served_by,
            revisions=tuple(self._revisions),
            features=tuple(self._features),
            states=self._states,
            dead=tuple(self._dead),
            statuses=tuple(self._statuses.values()),
        )
        self._revisions, self._features, self._states, self._dead = [], [], {}, []
        self._statuses = {}
        self._is_touched, self.n_deliveries, self.n_bytes = False, 0, 0
        return step
