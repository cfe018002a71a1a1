"""`s2netd bench`: what this machine can do, measured through the product's own code.

How good a model's events are is measured in `training.evaluation` and `training.benchmarks`.
"""
