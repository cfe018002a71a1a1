"""Which camera's chunk is decoded next: whoever has used least. Pure.

Cameras with cheap chunks must not wait for those whose chunks are costly, so turns go by the time
that cameras have used, and of several decoders one is always left to the cheap ones.

Source: start-time fair queueing (Goyal, Vin, Cheng 1996), with a camera as a flow.
"""

from dataclasses import dataclass, field

# A chunk that takes longer is costly: so many seconds of computing.
COSTLY_S = 1.0


@dataclass(slots=True)
class Turns:
    """Cameras that wait for a decoder, and those that have one; a camera has one chunk at a time.

    Attributes:
        n_decoders: How many there are.
    """

    n_decoders: int
    _waiting: dict[int, None] = field(default_factory=dict)  # in the order they came
    _busy: set[int] = field(default_factory=set)
    _used_s: dict[int, float] = field(default_factory=dict)
    _last_s: dict[int, float] = field(default_factory=dict)
    _gone: set[int] = field(default_factory=set)  # and busy still
    _floor_s: float = 0.0  # what the camera had used that was served last

    def ask(self, camera: int) -> None:
        """A camera has a chunk."""
        # Who was idle has not saved up turns.
        self._used_s[camera] = max(self._used_s.get(camera, 0.0), self._floor_s)
        self._waiting[camera] = None

    def withdraw(self, camera: int) -> None:
        """A waiting camera wants no turn any more."""
        self._waiting.pop(camera, None)

    def next(self) -> int | None:
        """The camera whose turn it is, which is busy from now on; None: nobody's."""
        if len(self._busy) >= self.n_decoders:
            return None
        may_be_costly = sum(map(self._is_costly, self._busy)) < max(self.n_decoders - 1, 1)
        able = [name for name in self._waiting if may_be_costly or not self._is_costly(name)]
        if not able:
            return None
        camera = min(able, key=self._used_s.__getitem__)
        self._floor_s = max(self._floor_s, self._used_s[camera])
        del self._waiting[camera]
        self._busy.add(camera)
        return camera

    def done(self, camera: int, spent_s: float) -> None:
        """A camera's chunk is done.

        Args:
            camera: The camera.
            spent_s: What the chunk took.
        """
        self._busy.discard(camera)
        self._used_s[camera] += spent_s
        self._last_s[camera] = spent_s
        if camera in self._gone:
            self._drop(camera)

    def forget(self, camera: int) -> None:
        """A camera is gone, or will be as soon as its chunk is done."""
        self.withdraw(camera)
        self._gone.add(camera)
        if camera not in self._busy:
            self._drop(camera)

    def _drop(self, camera: int) -> None:
        self._gone.discard(camera)
        self._used_s.pop(camera, None)
        self._last_s.pop(camera, None)

    def _is_costly(self, camera: int) -> bool:
        return self._last_s.get(camera, 0.0) > COSTLY_S
