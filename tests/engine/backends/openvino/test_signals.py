"""A signal finds its thread well, whatever was opened there and let go elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.bundle.model_bundle import ModelBundle
from tests.support.tiny_bundle import write_tiny_bundle

_PROGRAM = """
import gc, signal, sys, threading
from engine.backends import open_backend

held = [open_backend("openvino", sys.argv[1], precision="f32", threads=1)]

def let_go():
    held.pop().close()
    gc.collect()

thread = threading.Thread(target=let_go)
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda *_: print("told"))
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.openvino
def test_a_signal_after_a_network_was_let_go_on_another_thread_is_told(tmp_path: Path) -> None:
    network = ModelBundle.load(write_tiny_bundle(tmp_path / "tiny")).localizer_path
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, network], capture_output=True, text=True, check=False
    )

    assert (0, "told\n") == (done.returncode, done.stdout)
