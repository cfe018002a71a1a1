"""The checks in their order; each is tried, whatever the others find."""

from pathlib import Path

from daemon.check.brokers import check_access, check_names, probe_brokers
from daemon.check.findings import Findings, Say
from daemon.check.networks import check_networks, probe_device
from daemon.check.places import (
    check_appendable,
    check_chunk_folder,
    check_journal,
    check_listening,
    check_two_files,
)
from daemon.check.sections import Sections, read_sections
from daemon.config import DirectorySourceConfig, JsonlSinkConfig
from daemon.packaging import check_packages


def run_check(path: Path, say: Say, *, is_probe: bool = False) -> None:
    """Check a configuration.

    Args:
        path: Its file.
        say: Told that it is right, and with ``is_probe`` of each thing that is.
        is_probe: Ask brokers and try the device too.

    Raises:
        ConfigError: Something must be changed; a line for each fault.
        TransportError: Nothing must be, but a broker could not be reached.
    """
    findings = Findings(str(path), say if is_probe else _silently)
    with findings.of("installation"):
        check_packages()
    sections = read_sections(path)
    findings.take(sections.problems)
    description = check_networks(sections.model, findings) if sections.model else ""
    _check_places(sections, findings)
    for section, access in sections.access.items():
        check_access(section, access, findings)
    clusters = check_names(sections.whole, path, findings) if sections.whole else {}
    if is_probe and sections.whole is not None:
        probe_brokers(sections.whole, path, clusters, findings)
    if is_probe and sections.model is not None and description:
        probe_device(sections.model, findings)
    findings.end()
    say(f"{path}: ok ({description})")


def _check_places(sections: Sections, findings: Findings) -> None:
    source, sink, journal = sections.source, sections.sink, sections.journal
    if isinstance(source, DirectorySourceConfig):
        with findings.of("source.path", f"{source.path} can be read, and positions kept in it"):
            check_chunk_folder(source.path)
    if isinstance(sink, JsonlSinkConfig):
        with findings.of("sink.path", f"{sink.path} can be written"):
            check_appendable(sink.path)
    if journal is not None and sections.keeps_in_file:
        with findings.of("journal.path", f"{journal.path} can be written"):
            check_journal(journal.path)
            if isinstance(sink, JsonlSinkConfig):
                check_two_files(sink.path, journal.path)
    if sections.http is not None:
        with findings.of("http", f"{sections.http.host}:{sections.http.port} can be listened on"):
            check_listening(sections.http)


def _silently(_line: str) -> None:
    pass
