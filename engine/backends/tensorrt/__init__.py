"""The TensorRT backend: from an ONNX file to a kept plan, and from a plan to answers."""
