"""Memory of large chunks goes back to the system once they are gone."""

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from daemon import heap

def rss_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

if sys.argv[1] == "little":
    heap.keep_little()
before, small = rss_mib(), []
for _ in range(3):
    large = [bytes(8 * 2**20 - 64) for _ in range(20)]
    for n, block in enumerate(large):
        large[n] = block[:-1]           # touched, and another block behind it
        small.append(bytes(100_000))
    del large, block
print(rss_mib() - before - len(small) * 100_000 / 2**20)
"""


def kept_mib(how: str) -> float:
    """What is kept of 20 blocks of 8 MiB, three times."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc and glibc")
def test_large_blocks_go_back_though_small_ones_lie_behind_them() -> None:
    assert kept_mib("little") < 32
