"""Decoding in hardware as long as that works, camera by camera.

A GPU's decoder does not know every profile, has a limited number of sessions, and may be gone
altogether. None of this may cost a chunk: what the hardware cannot do, the CPU does.
"""

from collections.abc import Callable

from engine.errors import CorruptChunkError, RefusedChunkError
from engine.types import FrameBatch, VideoChunk
from engine.video.frames import Decoder

# One failure may lie in the chunk; so many in a row, of chunks that are sound, lie in the camera.
N_FAILURES = 3


class FallbackDecoder:
    """A hardware decoder, and the CPU for what it cannot do; a ``Decoder``.

    After ``N_FAILURES`` chunks in a row which only the CPU could decode, the camera stays on the
    CPU for good.

    Args:
        hardware: Tried first.
        software: Decodes what the other could not. What it cannot decode either is an error.
        on_note: Told of the first failure in a row, and of giving up.
    """

    def __init__(
        self, hardware: Decoder, software: Decoder, on_note: Callable[[str], None]
    ) -> None:
        self._hardware: Decoder | None = hardware
        self._software = software
        self._on_note = on_note
        self._n_failures = 0

    def decode(self, chunk: VideoChunk) -> FrameBatch:
        """See ``Decoder``.

        Raises:
            CorruptChunkError: The CPU cannot decode it either.
            RefusedChunkError: The chunk was not opened, or went over a limit.
        """
        if self._hardware is None:
            return self._software.decode(chunk)
        try:
            frames = self._hardware.decode(chunk)
        except RefusedChunkError:
            raise  # the CPU would refuse it too
        except CorruptChunkError as error:
            frames = self._software.decode(chunk)
            self._failed(chunk.camera, str(error))
        else:
            self._n_failures = 0
        return frames

    def close(self) -> None:
        """Free what both hold."""
        if self._hardware is not None:
            self._hardware.close()
        self._software.close()

    def _failed(self, camera: str, why: str) -> None:
        self._n_failures += 1
        if self._n_failures == 1:
            self._on_note(f"decoded on the CPU: {why}")
        if self._n_failures == N_FAILURES and self._hardware is not None:
            self._on_note(f"{camera} stays on the CPU: {N_FAILURES} failures in a row")
            self._hardware.close()
            self._hardware = None
