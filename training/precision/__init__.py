"""A bundle's backbone in lower precision: f16, bf16, int8.

Nothing is trained here, and no plan built: TensorRT runs a network as it was converted.
"""
