"""What a camera could not send: counted, and said at once and then once a minute."""

from dataclasses import dataclass, field

import structlog

from daemon.produce.spool import Waiting

AGAIN_S = 60.0


@dataclass(slots=True)
class _Lost:
    """What was lost for one reason and is not said yet."""

    n_chunks: int = 0
    n_bytes: int = 0
    duration_us: int = 0
    reason: str = ""
    said_s: float = float("-inf")


@dataclass(slots=True)
class Losses:
    """What one camera could not send.

    Attributes:
        camera: Its name.
        n_chunks: Chunks in all.
        duration_us: Footage in all.
    """

    camera: str
    n_chunks: int = 0
    duration_us: int = 0
    _unsaid: dict[str, _Lost] = field(default_factory=dict)

    def add(self, waiting: Waiting, why: str, reason: str = "") -> None:
        """A chunk is lost; an end marker is none.

        Args:
            waiting: The chunk.
            why: Chunks that are lost for the same reason are said together.
            reason: More words for it; the newest are said.
        """
        if waiting.chunk.is_end:
            return
        self.n_chunks += 1
        self.duration_us += waiting.duration_us
        lost = self._unsaid.setdefault(why, _Lost())
        lost.n_chunks += 1
        lost.n_bytes += len(waiting.chunk.payload)
        lost.duration_us += waiting.duration_us
        lost.reason = reason or why

    def tell(
        self, log: structlog.stdlib.BoundLogger, now_s: float, *, at_once: bool = False
    ) -> None:
        """Say what is not said yet, if that is due; call it often."""
        for why, lost in list(self._unsaid.items()):
            if not lost.n_chunks or (now_s - lost.said_s < AGAIN_S and not at_once):
                continue
            self._unsaid[why] = _Lost(said_s=now_s)
            log.warning(
                "produce.not_sent",
                camera=self.camera,
                reason=lost.reason,
                chunks=lost.n_chunks,
                seconds=round(lost.duration_us / 1e6, 1),
                bytes=lost.n_bytes,
            )
