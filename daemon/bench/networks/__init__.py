"""Measures what the CPU or a GPU does with a bundle's two networks: rates, calls and memory.

No video is decoded and no daemon runs here; `daemon.bench.cameras` measures with both.
"""
