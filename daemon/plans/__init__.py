"""`s2netd engine`: plans for GPUs, built, listed, cleared away; models held to a reference.

How a plan is built and kept is in `engine.backends.tensorrt`, the comparison itself in
`engine.verification`.
"""
