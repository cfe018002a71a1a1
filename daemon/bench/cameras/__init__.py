"""Measures how many live cameras this machine carries, and which stage takes how much time.

The networks alone, without video and daemon, are in `daemon.bench.networks`.
"""
