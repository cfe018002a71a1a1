"""Workers end with whoever started them, however that ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import os, sys, time
from engine.process_pool import process_pool

def begin(folder):
    open(os.path.join(folder, str(os.getpid())), "w").close()

def work(seconds):
    time.sleep(seconds)

if __name__ == "__main__":
    with process_pool(2, begin, sys.argv[1]) as pool:
        for job in [pool.submit(work, 600) for _ in range(6)]:
            job.result()
"""


def is_running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_parent_is_killed(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    begun = tmp_path / "begun"
    begun.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", begun], cwd=tmp_path, env=environment
    )
    try:
        while len(workers := list(begun.iterdir())) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.send_signal(how)
        parent.wait()

    pids = [int(worker.name) for worker in workers]
    while any(is_running(pid) for pid in pids):
        time.sleep(0.05)  # for ever, if they do not end: pytest's time limit tells
