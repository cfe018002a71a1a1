"""`s2netd engine`: builds, lists and deletes plans for GPUs, and compares models with a reference.

How a plan is built and kept is in `engine.backends.tensorrt`, the comparison itself in
`engine.verification`.
"""
