"""The file of `s2netd produce --config`: many cameras, one target.

Every field's description is the operator's documentation, as of the daemon's configuration.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from daemon.config import LogConfig, load_section
from daemon.kafka_sections import KafkaSecurityConfig, TopicName
from daemon.section import Section
from engine.video.addresses import RtspTransport
from engine.video.cutting import Transcode

_SCHEMA = "s2netd schema cameras"


class FolderTarget(Section):
    """A folder that holds one folder of chunk files for each camera."""

    kind: Literal["directory"] = "directory"
    path: Path = Field(description="The folder; it is made if it is missing.")


class TopicTarget(Section):
    """A Kafka topic of chunks."""

    kind: Literal["kafka"] = "kafka"
    bootstrap_servers: str = Field(
        description="Addresses of brokers, host:port, separated by commas."
    )
    topic: TopicName = Field(description="Topic that chunks are written to; it must exist.")
    security: KafkaSecurityConfig = KafkaSecurityConfig()


class CameraConfig(Section):
    """One camera, by its name."""

    url: str | None = Field(
        None,
        description="Address of the camera, rtsp, rtsps, http or https; or env:NAME, a variable "
        "of the environment that holds it.",
    )
    url_file: Path | None = Field(
        None,
        description="File that holds the address, so that its password stands nowhere else; a "
        "relative name may be one of systemd's credentials.",
    )
    chunk_s: float = Field(1.0, ge=0.1, le=60, description="Wanted length of a chunk, in seconds.")
    transcode: Transcode = Field(
        "auto",
        description="auto: re-encode only what cannot be cut; never: long GOPs stay whole; "
        "always: everything.",
    )
    rtsp_transport: RtspTransport = Field(
        "auto",
        description="How RTSP brings its packets: tcp, udp, or auto: TCP, and UDP only if the "
        "camera refuses it.",
    )
    ca_file: Path | None = Field(
        None,
        description="Of rtsps and https: certificates that are trusted, PEM, such as the "
        "camera's own; the system's if left out.",
    )
    check_certificate: bool = Field(
        default=True,
        description="Of rtsps and https: turn away a camera whose certificate is not trusted, or "
        "is for another host.",
    )

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("give either url or url_file")
        return self

    @property
    def source(self) -> str:
        """The source, as the command line would name it."""
        return f"@{self.url_file}" if self.url is None else self.url


class ProduceConfig(Section):
    """Many cameras and where their chunks go."""

    site: str = Field(
        "default", min_length=1, description="Name of the site, written into every chunk."
    )
    to: Annotated[FolderTarget | TopicTarget, Field(discriminator="kind")]
    cameras: dict[str, CameraConfig] = Field(min_length=1, description="The cameras, by name.")
    spool_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="Most bytes of chunks of all cameras that wait in memory while they cannot be "
        "written. Beyond, the camera that holds most loses its oldest.",
    )
    status_interval_s: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="How often, in seconds, each camera's status is logged; never if left out.",
    )
    log: LogConfig = LogConfig()


def load_cameras(path: Path) -> ProduceConfig:
    """Read and check a file of cameras.

    Raises:
        ConfigError: Names the file, the key and the fix; never a value, which may be a password.
    """
    return load_section(path, ProduceConfig, "cameras:", _SCHEMA, shows_values=False)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a file of cameras."""
    return ProduceConfig.model_json_schema()
