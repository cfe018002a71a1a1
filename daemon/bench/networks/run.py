"""``s2netd bench --device``: measures what the CPU or a GPU does with a bundle's two networks.

Every figure comes from the backends' own ``run``. The two sides of a ratio are measured in one
process, and in turns if possible. Nothing here passes or fails.
"""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from daemon.bench.networks.measure import measure
from daemon.bench.networks.opening import DeviceBench, DeviceBenchOptions, DeviceKind, Open
from daemon.bench.networks.report import DeviceFigures, markdown, table
from daemon.config import parse_model
from daemon.errors import ConfigError
from daemon.models.choosing import Telling, settled
from daemon.models.reading import read_model
from engine.backends import open_backend
from engine.backends.base import EngineBackend
from engine.backends.options import BackendOptions
from engine.bundle.model_bundle import ModelBundle, resolve_bundle


def run_device_bench(
    options: DeviceBenchOptions,
    console: Console,
    *,
    as_json: bool,
    report: Path | None = None,
    opening: Open | None = None,
) -> tuple[DeviceFigures, ...]:
    """Measure, then print a table or JSON, and write a report.

    Args:
        options: What to measure.
        console: Where the result goes.
        as_json: Print JSON instead of a table.
        report: A Markdown file to write; None: no file is written.
        opening: Opens a network; None: the device's backend does.

    Raises:
        ConfigError: The report cannot be written.
        BundleError: A bundle cannot be read.
        DeviceError: The device or its runtime is missing or failed.
    """
    device: DeviceKind = "cuda" if options.device == "cuda" else "cpu"
    if report is not None:
        _check_writable(report)
    status = Console(stderr=True)
    folders = [
        resolve_bundle(name) for name in options.bundles
    ]  # all are there before one is read
    if opening is None:
        runs = [
            _to_run(folder, name, options, status)
            for folder, name in zip(folders, options.bundles, strict=True)
        ]
    else:
        runs = [(ModelBundle.load(folder), opening) for folder in folders]
    figures = tuple(
        measure(bundle, DeviceBench(options, device, opens), status) for bundle, opens in runs
    )
    if as_json:
        console.print_json(json.dumps([asdict(one) for one in figures]))
    else:
        for one in figures:
            console.print(table(one))
    if report is not None:
        _write(report, markdown(figures))
    return figures


def _check_writable(report: Path) -> None:
    """Check, before anything is measured, that the report can be written; leave no file behind."""
    was_there = report.exists()
    _write(report, "", mode="a")
    if not was_there:
        report.unlink()


def _write(report: Path, text: str, mode: str = "w") -> None:
    try:
        with report.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"--report {report}: {error.strerror}: name a file that can be written"
        ) from error


def _to_run(
    folder: Path, name: str, options: DeviceBenchOptions, status: Console
) -> tuple[ModelBundle, Open]:
    """The bundle, or its form in the precision that is wanted or best here, and what opens it."""
    precision = options.precision
    if options.device == "cpu":
        plain = {"bundle": name, "threads": options.threads, "precision": precision}

        def note(words: str) -> None:
            status.print(words, markup=False, highlight=False, soft_wrap=True)

        with status.status(f"choosing a precision for {name}"):
            read = settled(read_model(parse_model(plain)), Telling(note))
        if read.choice:
            note(f"{name}: precision {read.choice}")
        bundle, precision = read.runs, read.arithmetic
    else:
        bundle = ModelBundle.load(folder)

    def opens(path: Path, sizes: BackendOptions) -> EngineBackend:
        threads = options.threads
        return open_backend(
            options.backend, path, precision=precision, threads=threads, options=sizes
        )

    return bundle, opens
