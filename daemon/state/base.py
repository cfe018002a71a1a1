"""Where each camera's state is kept between runs, and the promises every store keeps."""

from typing import Protocol


class StateStore(Protocol):
    """One opaque blob a camera. What a blob means is the session's business."""

    def load(self, camera: str) -> bytes | None:
        """The newest saved blob, byte for byte, or None."""

    def save(self, camera: str, partition: str, low_offset: int | None, blob: bytes) -> None:
        """Replace the camera's state, atomically and durably.

        Args:
            camera: The camera.
            partition: Where its chunks come from.
            low_offset: The first offset that a restart must read again; None when the camera
                needs nothing before the committed position (it ended, say). A camera that fell
                silent for good would otherwise pull every restart back to its last chunk.
            blob: Its state.

        Raises:
            TransportError: It could not be written.
        """

    def low_offsets(self) -> dict[str, int]:
        """For each partition the lowest ``low_offset`` of its cameras that need one."""

    def close(self) -> None:
        """Let go. Safe to repeat."""
