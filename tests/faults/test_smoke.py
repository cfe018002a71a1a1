"""The harness itself works: one small row, from a broker to a verdict. `make faults` runs them."""

from pathlib import Path

import pytest

from tests.faults.cluster import a_cluster
from tests.faults.feeder import make_footage
from tests.faults.rows import ROWS
from tests.faults.trial import Rig
from tests.faults.undisturbed import Undisturbed
from tests.support.kafka import need_java
from tests.support.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.soak, pytest.mark.openvino]


async def test_a_daemon_that_is_told_to_stop_and_started_again_breaks_no_rule(tmp_path: Path):
    need_java("a broker of our own needs")
    bundle = write_tiny_bundle(tmp_path / "bundle")
    async with a_cluster(tmp_path / "kafka") as cluster:
        undisturbed = Undisturbed(cluster, bundle, tmp_path)
        rig = Rig(cluster, bundle, make_footage(tmp_path), undisturbed, tmp_path)
        result = await ROWS[23](rig)

    assert [] == result.complaints
    # How long a partition stands still, P6, is measured by `make faults` on a quiet machine.
    assert [] == result.verdict.broken(None), (result.notes, result.verdict)
    assert 4 == result.injected
    assert result.verdict.events >= 8
