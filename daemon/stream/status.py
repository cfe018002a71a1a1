"""What happens to a camera → its status, and when that is worth telling. Pure.

Readers act on news: a camera that falls silent, comes back, is refused, begins a new run, lacks
footage, or is served by another model or daemon. Silence and its end are told at once, for they
cannot come often; other news is told at most once a second, and numbers alone at a longer
interval. So no status is told chunk by chunk.
"""

from dataclasses import dataclass, field

from daemon.journal.base import CameraStatus, Condition, Owner, Presence
from engine.grid import US_PER_S
from engine.spec import Rung

NEWS_INTERVAL_S = 1.0
CLOCK_AHEAD_S = 2.0  # clocks that are set by NTP differ by less


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a camera's worker knows.

    Attributes:
        run: The producer's run.
        model_id: The model that serves it.
        n_gaps: Places where footage was missing, since this daemon took the camera over.
        watermark_us: No event of the run that starts before this stream time will open any more.
        anchor_us: Unix time of stream time 0, if it is known.
        newest_us: Stream time of the newest frame that was finished; None before there was one.
        fps: Frames in a second of footage; None: not known yet.
        snippets_per_minute: Snippets in the last minute.
        n_open: Events that are not final.
        rung: How much of its footage is looked at.
        degraded: In which ways the camera is served worse than it could be.
    """

    run: str
    model_id: str
    n_gaps: int = 0
    watermark_us: int | None = None
    anchor_us: int | None = None
    newest_us: int | None = None
    fps: float | None = None
    snippets_per_minute: int = 0
    n_open: int = 0
    rung: Rung = Rung.FULL
    degraded: tuple[str, ...] = ()


@dataclass(slots=True)
class CameraWatch:
    """What this daemon has seen of a camera since it took it over.

    Attributes:
        camera: The camera.
        partition: Where its chunks lie.
        owner: This daemon.
        interval_s: How often numbers alone are told.
        silent_since_us: When it sent its last chunk, Unix microseconds; None: it is not silent.
        late_after_s: It is late if it is further behind than that, until it is no more than half
            as far.
    """

    camera: str
    partition: str
    owner: Owner
    interval_s: float
    silent_since_us: int | None = None
    late_after_s: float = 10.0
    _is_late: bool = False
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
        last_frame_us = _sum_of(facts.anchor_us, facts.newest_us)
        lag_s = _lag_s(last_frame_us, at_us if n_queued else self._last_us)
        most_s = self.late_after_s / 2 if self._is_late else self.late_after_s
        self._is_late = lag_s is not None and lag_s > most_s
        is_ahead = lag_s is not None and lag_s < -CLOCK_AHEAD_S
        degraded = (*facts.degraded, "clock_ahead") if is_ahead else facts.degraded
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
            degraded=degraded,
            watermark_us=facts.watermark_us,
            anchor_us=facts.anchor_us,
            last_offset=self._last_offset,
            last_chunk_us=self._last_us,
            condition=self._condition(degraded),
            last_frame_us=last_frame_us,
            lag_s=lag_s,
            fps=facts.fps,
            snippets_per_minute=facts.snippets_per_minute,
            rung=facts.rung,
        )

    def _condition(self, degraded: tuple[str, ...]) -> Condition:
        if self.silent_since_us is not None:
            return Condition.SILENT
        if self._is_refused:
            return Condition.REFUSED
        if self._is_late:
            return Condition.LATE
        return Condition.DEGRADED if degraded else Condition.LIVE

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


def _lag_s(last_frame_us: int | None, until_us: int | None) -> float | None:
    if last_frame_us is None or until_us is None:
        return None
    return (until_us - last_frame_us) / US_PER_S


def _sum_of(anchor_us: int | None, stream_us: int | None) -> int | None:
    return None if anchor_us is None or stream_us is None else anchor_us + stream_us


def is_news(before: CameraStatus, now: CameraStatus) -> bool:
    """True if readers should hear of a status at once, given the one they know."""
    return _told_at_once(before) != _told_at_once(now)


def _told_at_once(status: CameraStatus) -> tuple[object, ...]:
    return (
        status.state,
        status.run,
        status.model_id,
        status.n_gaps,
        status.condition,
        status.degraded,
        status.rung,
        status.partition,
        status.owner,
    )
