"""The OpenVINO backend, and its own forms of a network for CPUs.

It is opened by `engine.backends.open_backend`; files of lower precision are made in
`training.precision`.
"""
