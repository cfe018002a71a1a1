"""Where chunks are decoded while something is measured, and whether they really were."""

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
    """The daemon's own section for ``--decode``.

    Raises:
        ConfigError: There is no such hardware.
    """
    match hardware:
        case "none" | "cuda":
            return DecodeConfig(hardware=hardware, gpu=gpu)
        case _:
            raise ConfigError(f"--decode is {hardware!r}, wanted none or cuda")


class Decoding:
    """The daemon's decoders, and what they say of falling back to the CPU.

    Args:
        config: As the daemon's.

    Attributes:
        config: The same.
        new_decoder: A decoder of one camera's chunks for a model.
        notes: Each time a camera fell back to the CPU, and each that stayed there: why. None is
            there as long as the hardware decodes everything.
    """

    def __init__(self, config: DecodeConfig) -> None:
        self.config = config
        self.notes: list[str] = []
        log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[self._keep])
        self.new_decoder = decoders(config, log)

    def figures(self) -> dict[str, str | int]:
        """Where chunks were to be decoded, and how often that failed; the first reason."""
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
    """A decoder that is timed, and where it decodes; the CPU, if the GPU cannot.

    Args:
        config: Where it is to decode.
        spec: Of the model.
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
