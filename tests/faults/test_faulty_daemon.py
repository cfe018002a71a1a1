"""A fault strikes at its point, at its time, and leaves a mark."""

import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.faults.faulty_daemon import POINTS
from tests.support.checkout import CHECKOUT

_PROGRAM = """
import asyncio, sys
from pathlib import Path
from aiokafka import AIOKafkaProducer
from tests.faults.faulty_daemon import Fault, patch

async def answer(self):
    return None

async def commit_three():
    for number in range(3):
        await AIOKafkaProducer.commit_transaction(None)
        print(number, flush=True)

AIOKafkaProducer.commit_transaction = answer
patch(Fault(sys.argv[1], Path(sys.argv[2])))
asyncio.run(commit_three())
"""


@pytest.mark.slow
def test_the_process_dies_at_the_nth_time_it_gets_there(tmp_path: Path):
    mark = tmp_path / "mark"
    died = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "commit_transaction:after:2:kill", str(mark)],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
    )

    assert -signal.SIGKILL == died.returncode, died.stderr
    assert "0\n" == died.stdout
    assert "commit_transaction:after" == mark.read_text()


@pytest.mark.parametrize("point", POINTS)
def test_the_client_has_every_point(point: str):
    module, _, path = POINTS[point].partition(":")
    owner, _, method = path.partition(".")

    assert callable(getattr(getattr(import_module(module), owner), method))
