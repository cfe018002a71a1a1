"""The TensorRT backend: from an ONNX file to a kept plan, and from a plan to answers.

It is opened by `engine.backends.open_backend`; the commands for plans are in `daemon.plans`.
"""
