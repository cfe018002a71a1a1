"""What the C library keeps of memory that was freed: little, for a daemon runs for months.

Once glibc has seen a large block freed, it takes blocks of that size out of its heap, where one
small block behind them keeps all of their memory. A few chunks of 8 MiB cost 200 MiB so, for good.
With fixed limits, each large block is a mapping of its own, and goes back when it is freed.
"""

import ctypes

# What a chunk's frames take at the size of the model, and less than a chunk of a camera may.
LARGE_BYTES = 2 * 2**20
_TOP_BYTES = 16 * 2**20
_N_ARENAS = 2  # of threads that allocate; each keeps what it has
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # as in malloc.h

# The same for processes that are started, by what glibc reads when they begin.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(LARGE_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(_TOP_BYTES),
    "MALLOC_ARENA_MAX": str(_N_ARENAS),
}


def keep_little() -> None:
    """Set the limits of this process, where its C library has any."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl gives large blocks back of itself
        return
    for limit, value in (
        (_M_MMAP_THRESHOLD, LARGE_BYTES),
        (_M_TRIM_THRESHOLD, _TOP_BYTES),
        (_M_ARENA_MAX, _N_ARENAS),
    ):
        mallopt(limit, value)
