"""Where chunks are decoded during a measurement, and whether they really were decoded there."""

from collections.abc import MutableMapping
from typing import Any

import structlog

from daemon.config import DecodeConfig
from daemon.errors import ConfigError
from engine.errors import CorruptChunkError
from engine.spec import ModelSpec
from engine.types import VideoChunk
from engine.video.frames import PyAvDecoder


def decode_config(hardware: str, gpu: int, isolation: str = "process") -> DecodeConfig:
    """The daemon's ``decode`` section for the options ``--decode`` and ``--isolation``.

    Raises:
        ConfigError: One is not known.
    """
    match hardware, isolation:
        case ("none" | "cuda", "process" | "thread"):
            return DecodeConfig(hardware=hardware, gpu=gpu, isolation=isolation)
        case ("none" | "cuda", _):
            raise ConfigError(f"--isolation is {isolation!r}, wanted process or thread")
        case _:
            raise ConfigError(f"--decode is {hardware!r}, wanted none or cuda")


class Decoding:
    """The daemon's decoders, and a record of how often they fell back to the CPU.

    Args:
        config: The daemon's ``decode`` section.

    Attributes:
        config: The same.
        log: Takes those notes; give it to ``daemon.decoding.opening``.
        notes: A reason for each time that a camera fell back to the CPU or stayed there; empty as
            long as the hardware decodes everything.
    """

    def __init__(self, config: DecodeConfig) -> None:
        self.config = config
        self.notes: list[str] = []
        self.log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            structlog.ReturnLogger(), processors=[self._keep]
        )

    def figures(self) -> dict[str, str | int]:
        """Where chunks were to be decoded, how often that failed, and why it failed first."""
        if self.config.hardware == "none":
            return {"decode_asked": "CPU", "decode_isolation": self.config.isolation}
        found: dict[str, str | int] = {
            "decode_asked": f"GPU {self.config.gpu}",
            "decode_fallbacks_to_cpu": len(self.notes),
        }
        return found | ({"decode_first_fallback": self.notes[0]} if self.notes else {})

    def _keep(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        self.notes.append(str(event["reason"]))
        return event


def stage_decoder(
    config: DecodeConfig, spec: ModelSpec, first: VideoChunk
) -> tuple[PyAvDecoder, str]:
    """A decoder for one camera's stages, and in words where it decodes.

    If the GPU cannot decode the first chunk, this is the CPU.

    Args:
        config: Where to decode.
        spec: The model's facts.
        first: A chunk to try.
    """
    software = PyAvDecoder(spec.geometry, spec.grid)
    if config.hardware == "none":
        return software, "CPU"
    try:
        PyAvDecoder(spec.geometry, spec.grid, gpu=config.gpu).decode(first)
    except CorruptChunkError as error:
        return software, f"CPU: {error}"
    return PyAvDecoder(spec.geometry, spec.grid, gpu=config.gpu), f"GPU {config.gpu}"
