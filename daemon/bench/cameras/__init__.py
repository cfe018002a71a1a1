"""How many live cameras this machine carries, and where the time of one goes.

The networks alone, without video and daemon, are in `daemon.bench.networks`.
"""
