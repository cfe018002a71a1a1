"""What happens to a camera → its status, and when that is worth telling. Pure.

Readers act on news: a camera that falls silent, comes back, is refused, begins a new run, lacks
footage, or is served by another model or daemon. Silence and its end are told at once, for they
cannot come often; other news is told at most once a second, and numbers alone at a longer
interval. So no status is told chunk by chunk.
"""

from dataclasses import dataclass, field

from daemon.journal.base import CameraStatus, Owner, Presence

NEWS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a camera's worker knows.

    Attributes:
        run: The producer's run.
        model_id: The model that serves it.
        n_gaps: Places where footage was missing, since this daemon took the camera over.
        watermark_us: No event of the run that starts before this stream time will open any more.
        anchor_us: Unix time of stream time 0, if it is known.
    """

    run: str
    model_id: str
    n_gaps: int = 0
    watermark_us: int | None = None
    anchor_us: int | None = None


@dataclass(slots=True)
class CameraWatch:
    """What this daemon has seen of a camera since it took it over.

    Attributes:
        camera: The camera.
        partition: Where its chunks lie.
        owner: This daemon.
        interval_s: How often numbers alone are told.
        silent_since_us: When it sent its last chunk, Unix microseconds; None: it is not silent.
    """

    camera: str
    partition: str
    owner: Owner
    interval_s: float
    silent_since_us: int | None = None
    _is_refused: bool = False
    _n_refused: int = 0
    _last_offset: int | None = None
    _last_us: int | None = None
    _told: CameraStatus | None = field(default=None, repr=False)
    _told_s: float = 0.0

    def saw_chunk(self, offset: int, at_us: int, *, is_refused: bool) -> None:
        """A chunk was finished that had not been before.

        Args:
            offset: Its offset.
            at_us: When, Unix microseconds.
            is_refused: It could not be used.
        """
        self.silent_since_us = None
        self._is_refused = is_refused
        self._n_refused += is_refused
        self._last_offset, self._last_us = offset, at_us

    def saw_silence(self, since_us: int) -> None:
        """The camera has sent nothing since then, Unix microseconds."""
        if self.silent_since_us is None:
            # Its last chunk may have been finished long after it came.
            self.silent_since_us = max(since_us, self._last_us or since_us)

    def status(
        self, facts: StreamFacts, *, n_queued: int, n_behind: int | None, at_us: int
    ) -> CameraStatus:
        """The camera's status now.

        Args:
            facts: What its worker knows.
            n_queued: Its chunks in memory.
            n_behind: Records of its partition that were not read yet; None: not known.
            at_us: Unix microseconds.
        """
        return CameraStatus(
            camera=self.camera,
            state=self._state(),
            at_us=at_us,
            partition=self.partition,
            owner=self.owner,
            model_id=facts.model_id,
            run=facts.run,
            silent_since_us=self.silent_since_us,
            n_queued=n_queued,
            n_behind=n_behind,
            n_gaps=facts.n_gaps,
            n_refused=self._n_refused,
            watermark_us=facts.watermark_us,
            anchor_us=facts.anchor_us,
            last_offset=self._last_offset,
            last_chunk_us=self._last_us,
        )

    def is_due(self, now: CameraStatus, now_s: float) -> bool:
        """True if this status is to be told, which is then taken for told.

        Args:
            now: The status.
            now_s: Seconds of a clock that never goes back.
        """
        before = self._told
        if before is not None and before.silent_since_us == now.silent_since_us:
            wait_s = NEWS_INTERVAL_S if is_news(before, now) else self.interval_s
            if now_s - self._told_s < wait_s:
                return False
        self._told, self._told_s = now, now_s
        return True

    def _state(self) -> Presence:
        if self.silent_since_us is not None:
            return Presence.SILENT
        return Presence.REFUSED if self._is_refused else Presence.ONLINE


def is_news(before: CameraStatus, now: CameraStatus) -> bool:
    """True if readers should hear of a status at once, given the one they know."""
    return _told_at_once(before) != _told_at_once(now)


def _told_at_once(status: CameraStatus) -> tuple[object, ...]:
    return (
        status.state,
        status.run,
        status.model_id,
        status.n_gaps,
        status.degraded,
        status.partition,
        status.owner,
    )
