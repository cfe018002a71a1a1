"""The daemon's configuration: YAML → frozen pydantic models; unknown keys are refused.

Every field's description is the operator's documentation: the JSON Schema is made from it, and a
test compares the table in docs/operating.md with it. Kafka's sections are in ``kafka_sections``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from daemon.errors import ConfigError
from daemon.kafka_sections import KafkaSecurityConfig, KafkaSinkConfig, KafkaSourceConfig
from daemon.section import Section
from engine.backends.names import BackendKind, Precision
from engine.files.strict_yaml import read_bytes, read_plain
from engine.video.passwords import without_password

S = TypeVar("S", bound=Section)


# As ``engine.spec.Rung`` has them.
RungName = Literal["full", "half", "quarter", "gated"]


class EconomyConfig(Section):
    """What the backbone is spared, which takes most of the time."""

    rung: RungName = Field(
        "full",
        description="How much of the footage is looked at. full: every snippet; half: every "
        "second one, and the features between two are interpolated; quarter: every fourth; "
        "gated: every fourth in which something moves.",
    )
    cameras: dict[str, RungName] = Field(
        default_factory=dict,
        description="Cameras, by name, with rungs of their own.",
    )
    under_load: RungName = Field(
        "full",
        description="The lowest rung to which a camera goes down, rung by rung, while it falls "
        "behind; it goes up again when it has caught up. full: it stays where it is.",
    )
    motion_gate: Literal["off", "static"] = Field(
        "off",
        description="static: a snippet that shows what the last one looked at did has its "
        "feature, on any rung; off: only on the rung gated.",
    )
    look_every_s: float | None = Field(
        10,
        gt=0,
        le=86_400,
        description="After so many seconds a snippet is looked at though nothing moves; null: "
        "never.",
    )


class ModelConfig(Section):
    """Which networks run, and how."""

    bundle: str = Field(
        "kinetics400",
        description="Which networks run: a bundle's folder, or the name of a pulled bundle.",
    )
    labels: tuple[str, ...] | None = Field(
        None,
        description="Report only these classes, by name; all of them if left out.",
        json_schema_extra={"minItems": 1},
    )
    open_score: float | None = Field(
        None,
        gt=0,
        lt=2,
        description="Score at which an event opens; the bundle's own if left out.",
    )
    backend: BackendKind = Field(
        "openvino",
        description="What runs the networks: openvino on the CPU, tensorrt on an NVIDIA GPU; "
        "scripted answers zeros, for dry runs.",
    )
    precision: Precision = Field(
        "auto",
        description="Of openvino: f32 answers as the reference does; bf16 and int8, the latter of "
        "a bundle that has an int8 form, are faster on many CPUs; auto measures once which is "
        "fastest on this machine and still the same model. tensorrt computes in the precision "
        "that the bundle's files hold.",
    )
    threads: int | None = Field(
        None, ge=1, le=256, description="CPU threads of the backend; all cores if left out."
    )
    max_batch: int = Field(
        8,
        ge=1,
        le=256,
        description="Most snippets, of all cameras together, in one backbone call. On a CPU, 1 is "
        "slower and takes less memory, for the network is not compiled a second time for several "
        "snippets at once.",
    )
    one_batch_size: bool = Field(
        default=False,
        description="Of tensorrt: pad every call to max_batch. A camera's scores are then the "
        "same to the last bit, however many cameras share the call; at little load calls are "
        "slower.",
    )
    max_wait_ms: float = Field(
        0,
        ge=0,
        le=1000,
        description="How long, in milliseconds, a snippet may wait for others while the device is "
        "free. A few milliseconds fill a GPU's batches; on a CPU, waiting gains nothing.",
    )
    gpu: int = Field(0, ge=0, le=63, description="Which GPU tensorrt uses; 0 is the first.")
    economy: EconomyConfig = EconomyConfig()
    while_building: Literal["wait", "openvino"] = Field(
        "wait",
        description="What to do until the plans of tensorrt are built and verified. wait: serve "
        "no camera and answer that the daemon is not ready; openvino: serve on the CPU.",
    )
    verify: bool = Field(
        default=True,
        description="Compare a model with its reference, which is openvino in f32, before it "
        "serves; it must stay within the bundle's tolerance. Of the reference itself, only shapes "
        "and finite numbers are checked.",
    )

    @field_validator("labels")
    @classmethod
    def _report_something(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels == ():
            raise ValueError("[] reports nothing; name a class, or leave it out to report all")
        return labels


class DirectorySourceConfig(Section):
    """One folder of chunk files for each camera."""

    kind: Literal["directory"] = "directory"
    path: Path = Field(
        description="Folder that holds one folder for each camera, named for the camera."
    )
    follow: bool = Field(
        default=True,
        description="Wait for more files; if false, the daemon stops after the last one.",
    )
    poll_interval_s: float = Field(
        0.2, gt=0, le=60, description="Time between two looks for new files, in seconds."
    )
    retention_s: float | None = Field(
        None,
        ge=60,
        description="Chunk files that are done are removed when they are older, in seconds; "
        "whoever wrote them. They stay if left out.",
    )
    retention_bytes: int | None = Field(
        None,
        ge=1,
        description="A camera's oldest chunk files that are done are removed when all of its done "
        "files take more, in bytes. They stay if left out.",
    )


class JsonlSinkConfig(Section):
    """A file of event records, one on each line."""

    kind: Literal["jsonl"] = "jsonl"
    path: Path = Field(description="File that event records are appended to.")
    fsync: Literal["always", "interval", "never"] = Field(
        "always",
        description="When records are forced to the disk: always, before the daemon goes on; "
        "interval, about once a second; or never. Only always survives a power cut unharmed.",
    )


class JournalConfig(Section):
    """What each camera knows and what was published, kept in atomic steps."""

    kind: Literal["kafka", "local"] | None = Field(
        None,
        description="Where it is kept. kafka: in topics of the same cluster, so that each "
        "revision is published exactly once, whichever daemon of the group serves a camera; "
        "local: in a file, for a daemon that shares no camera with another host. Left out: kafka "
        "if source and sink are topics of the same brokers, else local.",
    )
    path: Path = Field(
        Path("journal.sqlite"),
        description="SQLite file of local; without it, open events are forgotten at a restart.",
    )
    guarantee: Literal["exactly-once", "at-least-once"] = Field(
        "exactly-once",
        description="Of kafka. exactly-once: a revision is published in one transaction with the "
        "offset and the state that follow from the same chunks; at-least-once: without "
        "transactions, so after a crash or a take-over revisions may come twice.",
    )
    prefix: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="Of kafka: what the names of the journal's own topics begin with; the "
        "group's id if left out.",
    )
    commit_interval_s: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Longest time, in seconds, until finished chunks are kept if no event "
        "follows from them; a revision is kept and published at once.",
    )


class DecodeConfig(Section):
    """How chunks are decoded, and how large one may be."""

    isolation: Literal["process", "thread"] = Field(
        "process",
        description="Where chunks are decoded on the CPU. process: in processes of their own, so "
        "that a chunk that crashes or holds up its decoder costs nobody but its camera; thread: "
        "in threads of the daemon, where nothing ends such a chunk. A GPU decodes in threads.",
    )
    threads: int = Field(
        2, ge=1, le=64, description="How many cameras are decoded at the same time."
    )
    max_seconds: float = Field(
        10,
        gt=0,
        le=3600,
        description="Most seconds of computing for a chunk; a process that needs more is ended.",
    )
    max_memory_bytes: int = Field(
        2**30, ge=2**26, description="Most memory that a process may need for a chunk, in bytes."
    )
    hardware: Literal["none", "cuda"] = Field(
        "none",
        description="Where chunks are decoded. none: on the CPU; cuda: in the GPU's video "
        "decoder, and on the CPU those cameras that it cannot decode.",
    )
    gpu: int = Field(0, ge=0, le=63, description="Which GPU decodes, if one does; 0 is the first.")
    max_pixels: int = Field(
        8_847_360, ge=1024, description="Largest frame, in pixels; the default is 4096 x 2160."
    )
    max_frames: int = Field(2000, ge=1, description="Most frames in a chunk.")
    max_chunk_bytes: int = Field(67_108_864, ge=1024, description="Largest chunk, in bytes.")


class HttpConfig(Section):
    """The HTTP server of /livez, /readyz and /metrics."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback by default.")
    port: int = Field(9464, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")


class LogConfig(Section):
    """The log, which goes to standard error."""

    form: Literal["json", "console"] = Field(
        "json", description="json for machines, console for people."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Nothing below this level is logged."
    )


SourceConfig = Annotated[DirectorySourceConfig | KafkaSourceConfig, Field(discriminator="kind")]
SinkConfig = Annotated[JsonlSinkConfig | KafkaSinkConfig, Field(discriminator="kind")]


def _with_state(schema: dict[str, Any]) -> None:
    """The schema takes what ``Config`` takes, and so the older form of ``journal.path`` too."""
    schema["properties"]["state"] = {
        "type": "object",
        "deprecated": True,
        "description": "Older form of journal.path, for files that have no journal section.",
        "additionalProperties": False,
        "properties": {"kind": {"const": "sqlite"}, "path": {"type": "string"}},
    }


class Config(Section):
    """The configuration of one daemon."""

    model_config = ConfigDict(json_schema_extra=_with_state)

    site: str = Field(
        "default", min_length=1, description="Name of the site, written into every event."
    )
    model: ModelConfig = ModelConfig()
    source: SourceConfig
    sink: SinkConfig
    journal: JournalConfig = JournalConfig()
    decode: DecodeConfig = DecodeConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()
    silent_after_s: float = Field(
        30,
        gt=0,
        le=86_400,
        description="A camera that sends nothing for so many seconds is silent: its open events "
        "get their last revision, with the reason silent.",
    )
    forget_after_s: float = Field(
        604_800,
        gt=0,
        description="A camera that sends nothing for so many seconds is forgotten, and makes "
        "room for another one.",
    )
    late_after_s: float = Field(
        10,
        gt=0,
        le=86_400,
        description="A camera is late if its newest finished footage lies so many seconds behind "
        "its capture.",
    )
    foreign_time: Literal["end", "start", "record"] = Field(
        "end",
        description="What the time of a record without headers marks (in a folder, a file's "
        "time). end: the end of its last picture; start: its first picture; both put chunks that "
        "come in bursts behind each other. record: its first picture, to the microsecond, so "
        "that of chunks that overlap pictures are left out.",
    )
    status_interval_s: float = Field(
        30,
        gt=0,
        le=3600,
        description="How often, in seconds, each camera's status is written if nothing happens "
        "that is written at once.",
    )
    queue_chunks: int = Field(
        4,
        ge=2,
        le=1000,
        description="How many chunks of one camera may wait in memory before its partition is "
        "paused.",
    )
    queue_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="How many bytes of chunks of all cameras together may wait in memory before "
        "partitions that bring more are paused.",
    )
    max_cameras: int = Field(
        512,
        ge=1,
        description="Most cameras, for a camera's name comes from outside. A further one takes "
        "the place of the one that is silent for longest, and is refused if none is.",
    )
    drain_timeout_s: float = Field(
        20,
        gt=0,
        le=600,
        description="Time to finish what was begun after SIGTERM, in seconds.",
    )

    @model_validator(mode="before")
    @classmethod
    def _is_of_today(cls, plain: Any) -> Any:
        return _of_before(plain) if isinstance(plain, dict) else plain

    @property
    def keeps_in_kafka(self) -> bool:
        """True if the journal is one in Kafka."""
        if self.journal.kind is not None:
            return self.journal.kind == "kafka"
        return self._is_one_cluster

    @property
    def _is_one_cluster(self) -> bool:
        source, sink = self.source, self.sink
        if not isinstance(source, KafkaSourceConfig) or not isinstance(sink, KafkaSinkConfig):
            return False
        brokers = [
            {address.strip() for address in one.bootstrap_servers.split(",")}
            for one in (source, sink)
        ]
        return bool(brokers[0] & brokers[1])

    @model_validator(mode="after")
    def _can_be_kept(self) -> "Config":
        if self.journal.kind == "kafka" and not self._is_one_cluster:
            raise ValueError(
                "journal.kind is kafka, which needs a source and a sink of kind kafka with the "
                "same bootstrap_servers: its transactions span one cluster"
            )
        return self


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Relative paths inside it are relative to the current directory, as in a shell.

    Raises:
        ConfigError: Names the file, the key, the value seen, and the fix.
    """
    return parse(read(path), str(path))


def read(path: Path) -> dict[str, Any]:
    """The plain values of a configuration file, unchecked but for their form.

    Raises:
        ConfigError: It cannot be read, or is no mapping.
    """
    return _of_before(_read_yaml(path, "source:"))


def _of_before(plain: dict[str, Any]) -> dict[str, Any]:
    """Read ``state: {kind: sqlite, path: FILE}``, which is ``journal: {path: FILE}`` now."""
    if "state" not in plain or "journal" in plain:
        return plain
    state, rest = plain["state"], {key: plain[key] for key in plain if key != "state"}
    if not isinstance(state, dict) or set(state) - {"kind", "path"}:
        return plain
    if state.get("kind", "sqlite") != "sqlite":
        return plain
    return {**rest, "journal": {"path": state["path"]} if "path" in state else {}}


def load_security(path: Path) -> KafkaSecurityConfig:
    """Read and check a file that holds the keys of a section ``security`` and nothing else.

    Raises:
        ConfigError: Names the file, the key, the value seen, and the fix.
    """
    return load_section(path, KafkaSecurityConfig, "protocol:")


def load_section(
    path: Path,
    kind: type[S],
    example: str,
    schema: str = "s2netd schema config",
    *,
    shows_values: bool = True,
) -> S:
    """Read and check a file that holds one section and nothing else.

    Args:
        path: The file.
        kind: The section.
        example: A key of it, for errors.
        schema: The command that prints its keys, for errors.
        shows_values: Whether errors may show what is wrong, or only where; it may be a password.

    Raises:
        ConfigError: Names the file, the key and the fix.
    """
    plain = _read_yaml(path, example)
    with _explained(str(path), schema, shows_values=shows_values):
        return kind.model_validate(plain)


def _read_yaml(path: Path, example: str) -> dict[str, Any]:
    try:
        plain = read_plain(read_bytes(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: holds {type(plain).__name__}, wanted keys such as {example}")
    return plain


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
def _explained(
    where: str, schema: str = "s2netd schema config", *, shows_values: bool = True
) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        problems = [dict(problem) for problem in error.errors()]
        lines = [_explain(problem, schema, shows_values=shows_values) for problem in problems]
        shown = error if shows_values else None
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from shown


def _explain(problem: dict[str, Any], schema: str, *, shows_values: bool) -> str:
    # An address may have slipped into the place of a key.
    parts = [str(part) if shows_values else without_password(str(part)) for part in problem["loc"]]
    key = ".".join(parts) or "(top level)"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; see `{schema}` for the keys there are"
    if problem["type"] == "missing":
        return f"{key}: is missing; see `{schema}`"
    if problem["type"] == "value_error":  # of several keys together: what was seen is all of them
        return f"{key}: {problem['ctx']['error']}"
    seen = f"; seen {problem['input']!r}" if shows_values else ""
    return f"{key}: {problem['msg']}{seen}"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file, for editors and for checks of many files."""
    return Config.model_json_schema()
