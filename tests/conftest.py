"""Fixtures and the hypothesis profile every test shares."""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from engine.bundle.model_bundle import resolve_bundle
from engine.errors import BundleError
from tests.support.checkout import CHECKOUT
from tests.support.real_parts import has_torch, missing
from tests.support.skipped import told

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Importing OpenVINO itself would report the import to its vendor and write into HOME.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

pytest_plugins = ["tests.support.kafka", "tests.support.secured_kafka"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs torch where there is none, and what takes minutes unless asked for."""
    if item.get_closest_marker("torch") and not has_torch():
        missing("no torch: pip install 's2netd[training]'")
    if item.get_closest_marker("soak") and os.environ.get("S2NETD_TEST_SOAK") != "1":
        pytest.skip("takes minutes: run with S2NETD_TEST_SOAK=1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files of long tests where processes share them: else one works on alone."""
    unlike = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unlike:  # no two processes would call them the same
        raise pytest.UsageError(f"named for an address in memory: {unlike[0]}")
    if hasattr(config, "workerinput"):
        n_long = Counter(
            item.path for item in items if any(map(item.get_closest_marker, ("slow", "kafka")))
        )
        items.sort(key=lambda item: -n_long[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out whole files, unless told otherwise."""
    if config.option.dist != "loadfile":
        return None
    from tests.support.workers import WholeFiles  # noqa: PLC0415 - needs xdist

    return WholeFiles(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what is missing here; failures and errors are listed by pytest itself."""
    skipped = terminalreporter.getreports("skipped")
    for line in told(report.longrepr[2] for report in skipped):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def shared_clips() -> Path:
    """Folder of real clips, kept beside the checkout; not part of the project."""
    data = Path(os.environ.get("S2NETD_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    clips = data / "clips"
    if not clips.is_dir():
        pytest.skip("no real clips: set S2NETD_TEST_DATA to a folder that holds clips/")
    return clips


@pytest.fixture(scope="session")
def kinetics400() -> Path:
    """The pulled bundle of real weights."""
    try:
        return resolve_bundle("kinetics400")
    except BundleError as error:
        missing(f"no real weights: {error}")
