"""A bundle's backbone in lower precision: f16, bf16, int8."""
