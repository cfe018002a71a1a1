"""Where chunks are decoded during a measurement, and whether they really were decoded there."""

from collections.abc import MutableMapping
from typing import Any

import structlog

from daemon.compose import decoders
from daemon.config import DecodeConfig
from daemon.errors import ConfigError
from engine.errors import CorruptChunkError
from engine.spec import ModelSpec
from engine.types import VideoChunk
from engine.video.frames import PyAvDecoder


def decode_config(hardware: str, gpu: int) -> DecodeConfig:
    """The daemon's ``decode`` section for the option ``--decode``.

    Raises:
        ConfigError: ``hardware`` is not known.
    """
    match hardware:
        case "none" | "cuda":
            return DecodeConfig(hardware=hardware, gpu=gpu)
        case _:
            raise ConfigError(f"--decode is {hardware!r}, wanted none or cuda")


class Decoding:
    """The daemon's decoders, and a record of how often they fell back to the CPU.

    Args:
        config: The daemon's ``decode`` section.

    Attributes:
        config: The same.
        new_decoder: Makes a decoder of one camera's chunks for a model.
        notes: A reason for each time that a camera fell back to the CPU or stayed there; empty as
            long as the hardware decodes everything.
    """

    def __init__(self, config: DecodeConfig) -> None:
        self.config = config
        self.notes: list[str] = []
        log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[self._keep])
        self.new_decoder = decoders(config, log)

    def figures(self) -> dict[str, str | int]:
        """Where chunks were to be decoded, how often that failed, and why it failed first."""
        if self.config.hardware == "none":
            return {"decode_asked": "CPU"}
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
