"""Where each camera's state is kept across restarts, and the promises every store keeps."""

from typing import Protocol


class StateStore(Protocol):
    """Keeps one blob of bytes for each camera; only the camera's session knows what it means."""

    def load(self, camera: str) -> bytes | None:
        """The camera's newest saved blob, byte for byte; None if there is none."""

    def save(self, camera: str, partition: str, low_offset: int | None, blob: bytes) -> None:
        """Replace the camera's state, atomically and durably.

        Args:
            camera: The camera.
            partition: Where its chunks come from.
            low_offset: The first offset that a restart must read again; None if the camera needs
                nothing before the committed position, because its run ended, say. Otherwise a
                camera that is silent for good would draw every restart back to its last chunk.
            blob: Its state.

        Raises:
            TransportError: It could not be written.
        """

    def low_offset(self, partition: str) -> int | None:
        """The lowest ``low_offset`` of a partition's cameras, as of now; None if none has one.

        It moves with every save, so it is asked each time a partition is assigned.
        """

    def close(self) -> None:
        """Let go. Safe to repeat."""
