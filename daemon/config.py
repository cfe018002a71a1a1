"""The daemon's configuration: YAML → frozen pydantic models; unknown keys are refused.

Every field's description is the operator's documentation: the JSON Schema is made from this file,
and a test holds the table in docs/operating.md to it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemon.errors import ConfigError
from engine.backends.names import BackendKind, Precision


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Model):
    """Which network, and how it is run."""

    bundle: str = Field(
        "kinetics400", description="A bundle folder, or the name of a pulled bundle."
    )
    labels: tuple[str, ...] | None = Field(
        None, description="Report only these classes; all of them if left out."
    )
    open_score: float | None = Field(
        None, gt=0, lt=2, description="Score at which an event opens; the bundle's if left out."
    )
    backend: BackendKind = Field(
        "openvino",
        description="What runs the networks: openvino on the CPU, tensorrt on an NVIDIA GPU; "
        "scripted answers zeros (dry runs).",
    )
    precision: Precision = Field(
        "auto",
        description="Of openvino: f32 for parity; bf16 needs a CPU with AMX to be faster; auto "
        "decides. tensorrt runs what the bundle's networks hold.",
    )
    threads: int | None = Field(
        None, ge=1, le=256, description="Threads of the backend; all cores if left out."
    )
    max_batch: int = Field(
        8,
        ge=1,
        le=256,
        description="Most snippets of several cameras in one backbone call. On a CPU, 1 is slower "
        "and takes less memory: the network is not compiled again for rows side by side.",
    )
    one_batch_size: bool = Field(
        default=False,
        description="Of tensorrt: pad every call to max_batch, so that a camera's scores are the "
        "same to the last bit however many cameras share the call; slower at little load.",
    )
    max_wait_ms: float = Field(
        0,
        ge=0,
        le=1000,
        description="How long a snippet may wait for company while the device is free; a few "
        "milliseconds fill a GPU's batches, on a CPU waiting gains nothing.",
    )
    gpu: int = Field(0, ge=0, le=63, description="Which GPU, of tensorrt; 0 is the first.")
    while_building: Literal["wait", "openvino"] = Field(
        "wait",
        description="Before the plans of tensorrt are built and verified: wait, not ready, or "
        "serve on the CPU.",
    )
    verify: bool = Field(
        default=True,
        description="Hold a model to its reference before it serves: tensorrt and bf16 to "
        "openvino in f32, within the bundle's tolerance; that one to plain sense.",
    )


class DirectorySourceConfig(_Model):
    """A folder of chunk files per camera."""

    kind: Literal["directory"] = "directory"
    path: Path = Field(description="Holds one folder a camera, named for it.")
    follow: bool = Field(
        default=True, description="Wait for more files; false stops at the last one."
    )
    poll_interval_s: float = Field(
        0.2, gt=0, le=60, description="How often to look for new files."
    )


class KafkaSecurityConfig(_Model):
    """How to talk to the broker; secrets come from files."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Security protocol."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism."
    )
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password_file: Path | None = Field(None, description="File that holds the password.")
    ca_file: Path | None = Field(None, description="CA certificates, PEM.")


class KafkaSourceConfig(_Model):
    """A topic of video chunks."""

    kind: Literal["kafka"] = "kafka"
    bootstrap_servers: str = Field(description="host:port, several separated by commas.")
    topic: str = Field(description="Topic of the chunks.")
    group_id: str = Field("s2netd", description="Consumer group.")
    group_instance_id: str | None = Field(
        None,
        description="Name of this member: one that comes back within 30 s moves no partitions. "
        "Made from the host and state.path if left out.",
    )
    start: Literal["earliest", "latest"] = Field(
        "latest", description="Where to start when the group has no position yet."
    )
    max_chunk_bytes: int = Field(
        8_388_608, ge=65_536, description="Largest record to accept, in bytes."
    )
    security: KafkaSecurityConfig = KafkaSecurityConfig()


class JsonlSinkConfig(_Model):
    """One event record a line."""

    kind: Literal["jsonl"] = "jsonl"
    path: Path = Field(description="File to append to.")
    fsync: Literal["always", "interval", "never"] = Field(
        "always",
        description="When records reach the disk; only always survives a power cut unharmed.",
    )


class KafkaSinkConfig(_Model):
    """A topic of action events."""

    kind: Literal["kafka"] = "kafka"
    bootstrap_servers: str = Field(description="host:port, several separated by commas.")
    topic: str = Field(description="Topic of the events.")
    security: KafkaSecurityConfig = KafkaSecurityConfig()


class StateConfig(_Model):
    """Where each camera's state is kept between runs."""

    kind: Literal["sqlite"] = "sqlite"
    path: Path = Field(description="Database file; lose it and open events are forgotten.")


class DecodeConfig(_Model):
    """Decoding, and what a chunk may cost."""

    threads: int = Field(2, ge=1, le=64, description="Cameras decoded at the same time.")
    hardware: Literal["none", "cuda"] = Field(
        "none",
        description="cuda: in the GPU's video decoder; a camera it cannot decode goes to the CPU.",
    )
    gpu: int = Field(0, ge=0, le=63, description="Which GPU decodes, if one does.")
    max_pixels: int = Field(
        8_847_360, ge=1024, description="Largest frame (4096 x 2160), in pixels."
    )
    max_frames: int = Field(2000, ge=1, description="Most frames in a chunk.")
    max_chunk_bytes: int = Field(67_108_864, ge=1024, description="Largest chunk, in bytes.")


class HttpConfig(_Model):
    """/livez, /readyz and /metrics."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback by default.")
    port: int = Field(9464, ge=0, le=65_535, description="0 takes a free port.")


class LogConfig(_Model):
    """Logging to standard error."""

    form: Literal["json", "console"] = Field("json", description="For machines or for people.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level.")


SourceConfig = Annotated[DirectorySourceConfig | KafkaSourceConfig, Field(discriminator="kind")]
SinkConfig = Annotated[JsonlSinkConfig | KafkaSinkConfig, Field(discriminator="kind")]


class Config(_Model):
    """Everything one daemon is told."""

    site: str = Field("default", min_length=1, description="Written into every event.")
    model: ModelConfig = ModelConfig()
    source: SourceConfig
    sink: SinkConfig
    state: StateConfig
    decode: DecodeConfig = DecodeConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()
    queue_chunks: int = Field(
        4, ge=2, le=1000, description="Chunks of one camera in memory before its source waits."
    )
    max_cameras: int = Field(
        512, ge=1, description="Chunks of further cameras are refused: names come from outside."
    )
    drain_timeout_s: float = Field(
        20, gt=0, le=600, description="Time to finish what was begun after SIGTERM."
    )


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Relative paths inside it are relative to the current directory, as in a shell.

    Raises:
        ConfigError: Names the file, the key, the value seen, and the fix.
    """
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not YAML: {_yaml_problem(error)}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: holds {type(plain).__name__}, wanted keys such as source:")
    return parse(plain, str(path))


def parse(plain: dict[str, Any], where: str) -> Config:
    """Check plain values.

    Raises:
        ConfigError: One line for each wrong key.
    """
    with _explained(where):
        return Config.model_validate(plain)


def parse_model(plain: dict[str, Any], where: str = "command line") -> ModelConfig:
    """Check the values of the model section alone.

    Raises:
        ConfigError: One line for each wrong key.
    """
    with _explained(where):
        return ModelConfig.model_validate(plain)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        lines = [_explain(dict(problem)) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def _yaml_problem(error: Exception) -> str:
    """One line: a parser's own message spans five and shows the file's inner name."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).splitlines()[0]


def _explain(problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; see `s2netd schema config` for the keys there are"
    if problem["type"] == "missing":
        return f"{key}: is missing; see `s2netd schema config`"
    return f"{key}: {problem['msg']}; seen {problem['input']!r}"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors and for checking fleets of files."""
    return Config.model_json_schema()
