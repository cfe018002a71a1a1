"""`s2netd bench`: measures what this machine can do, through the daemon's own code.

How good a model's events are is measured in `training.evaluation` and `training.benchmarks`.
"""
