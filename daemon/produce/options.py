"""What the command line or a file of cameras says → footage; nothing is opened yet."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast, get_args

from daemon.errors import ConfigError, MalformedRecordError
from daemon.produce.config import CameraConfig, FolderTarget, ProduceConfig
from daemon.produce.footage import Footage, folder_name
from daemon.secret_files import located, read_secret
from daemon.wire.headers import read_name
from engine.video.addresses import (
    SCHEMES,
    Access,
    RtspTransport,
    scheme_of,
    usable,
)
from engine.video.cutting import Transcode
from engine.video.passwords import without_password

SPOOL_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class ProduceOptions:
    """What the command line says; see `s2netd produce --help`."""

    source: str = field(repr=False)
    camera: str
    to: str
    bootstrap: str = "127.0.0.1:9092"
    security: Path | None = None
    chunk_s: float = 1.0
    transcode: str = "auto"
    realtime: bool = False
    loop: bool = False
    site: str = "default"
    rtsp_transport: str = "auto"
    camera_ca: Path | None = None
    check_certificate: bool = True
    spool_bytes: int = SPOOL_BYTES
    status: bool = False


def footage_of(options: ProduceOptions) -> Footage:
    """The footage that the command line names.

    Raises:
        ConfigError: An option has no such value, or the source cannot be one.
    """
    for option, name in (("--camera", options.camera), ("--site", options.site)):
        _check_name(option, name)
    if options.to.startswith("dir:"):
        folder_name(options.camera)
    return Footage(
        camera=options.camera,
        source=source_of(options.source),
        chunk_s=options.chunk_s,
        transcode=cast(Transcode, _one_of("--transcode", options.transcode, get_args(Transcode))),
        access=_access(options.rtsp_transport, options.camera_ca, check=options.check_certificate),
        realtime=options.realtime,
        loop=options.loop,
    )


def source_of(text: str) -> str:
    """The source that a text names: itself, what ``@FILE`` holds, or what ``env:NAME`` is set to.

    Raises:
        ConfigError: The file or the variable is missing, or it is an address that cannot be one.
    """
    source = text
    if text.startswith("@"):
        source = read_secret(Path(text[1:]), "the source").strip()
    elif text.startswith("env:"):
        name = text.removeprefix("env:")
        source = os.environ.get(name, "").strip()
        if not source:
            raise ConfigError(f"the source is {text}, but the variable {name} is not set")
    scheme = scheme_of(source)
    if scheme is None:
        return source
    shown = without_password(source)
    if scheme not in SCHEMES:
        raise ConfigError(f"{shown}: {scheme}:// is not supported, wanted {', '.join(SCHEMES)}")
    try:
        usable(source)
    except ValueError as error:
        raise ConfigError(f"{shown}: {error}") from None
    return source


def _check_name(what: str, name: str) -> None:
    try:
        read_name(what, name)
    except MalformedRecordError as error:
        raise ConfigError(str(error)) from error


def _one_of(option: str, value: str, wanted: tuple[str, ...]) -> str:
    if value not in wanted:
        names = f"{', '.join(wanted[:-1])} or {wanted[-1]}"
        raise ConfigError(f"{option} is {value!r}, wanted {names}")
    return value


def footages_of(config: ProduceConfig) -> list[Footage]:
    """Each camera's footage.

    Raises:
        ConfigError: The site's name is none; or a line for each camera that cannot be one.
    """
    _check_name("site", config.site)
    footages: list[Footage] = []
    faults: list[str] = []
    for name, camera in config.cameras.items():
        try:
            footages.append(_camera_footage(name, camera, config))
        except ConfigError as error:
            shown = without_password(name)
            faults.append(f"cameras.{shown}: {str(error).replace(name, shown)}")
    if faults:
        raise ConfigError("\n".join(faults))
    return footages


def _camera_footage(name: str, camera: CameraConfig, config: ProduceConfig) -> Footage:
    _check_name("its name", name)
    if isinstance(config.to, FolderTarget):
        folder_name(name)
    source = source_of(camera.source)
    if scheme_of(source) is None:
        raise ConfigError(f"wanted an address with one of {', '.join(SCHEMES)}")
    access = _access(camera.rtsp_transport, camera.ca_file, check=camera.check_certificate)
    return Footage(name, source, camera.chunk_s, camera.transcode, access)


def _access(transport: str, ca_file: Path | None, *, check: bool) -> Access:
    wanted = _one_of("--rtsp-transport", transport, get_args(RtspTransport))
    if ca_file is not None:
        ca_file = located(ca_file)
        if not os.access(ca_file, os.R_OK):
            raise ConfigError(f"cannot read {ca_file}; wanted certificates to trust, PEM")
    return Access(cast(RtspTransport, wanted), ca_file, check)
