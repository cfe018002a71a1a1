"""All cameras of a replay: their windows share the localizer's calls, as they do live."""

from daemon.replay.camera import CameraReplay, ReplayedRun, ReplayModel, Work, runs_of
from daemon.replay.period import LoggedRows, Period
from engine.cas import Localizer


class Replay:
    """Rows of any cameras, in the order of the log → runs with their events.

    Args:
        model: The bundle.
        localizer: Its localizer.
        period: What is asked for.
        max_batch: Most windows in one call.

    Attributes:
        replayed_us: Footage put through so far, of all cameras together.
        first_us: Unix time of the oldest rows that were seen; None: there were none.
        last_us: That of the newest.
    """

    def __init__(
        self, model: ReplayModel, localizer: Localizer, period: Period, max_batch: int
    ) -> None:
        self._model = model
        self._localizer = localizer
        self._period = period
        self._max_batch = max_batch
        self._cameras: dict[str, CameraReplay] = {}
        self._waiting: list[Work] = []
        self._n_windows = 0
        self.replayed_us = 0
        self.first_us: int | None = None
        self.last_us: int | None = None

    @property
    def runs(self) -> list[ReplayedRun]:
        """The runs of which footage lies in the period, by camera, oldest first."""
        return runs_of([self._cameras[camera] for camera in sorted(self._cameras)])

    @property
    def cameras(self) -> tuple[str, ...]:
        """All cameras that were seen."""
        return tuple(sorted(self._cameras))

    def push(self, logged: LoggedRows) -> None:
        """Take in the next rows.

        Raises:
            ConfigError: Another backbone made rows of the period.
            DeviceError: The backend failed.
        """
        camera = logged.rows.camera
        if camera not in self._cameras:
            self._cameras[camera] = CameraReplay(camera, self._model, self._period)
        moment_us = logged.moment_us(self._model.spec.grid)
        self.first_us = moment_us if self.first_us is None else min(self.first_us, moment_us)
        self.last_us = moment_us if self.last_us is None else max(self.last_us, moment_us)
        self.replayed_us += len(logged.rows.vectors) * self._model.spec.grid.stride_us
        works = self._cameras[camera].push(logged)
        self._waiting += works
        self._n_windows += sum(work.window is not None for work in works)
        if self._n_windows >= self._max_batch:
            self.settle()

    def settle(self) -> None:
        """Finish everything that waits.

        Raises:
            DeviceError: The backend failed.
        """
        windows = [work.window for work in self._waiting if work.window is not None]
        answers = iter(
            [
                answer
                for first in range(0, len(windows), self._max_batch)
                for answer in self._localizer.localize(windows[first : first + self._max_batch])
            ]
        )
        for work in self._waiting:
            work.finish(None if work.window is None else next(answers))
        self._waiting, self._n_windows = [], 0
