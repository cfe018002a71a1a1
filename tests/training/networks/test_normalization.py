"""Normalization is torch's own, and every runtime computes it."""

import warnings
from pathlib import Path

import pytest

from engine.backends import open_backend
from tests.support.real_parts import torch_imports

with torch_imports():
    import torch
    from torch import nn

    from training.networks.normalization import LayerNorm


@pytest.mark.numeric
@pytest.mark.torch
@pytest.mark.openvino
@pytest.mark.parametrize("width", [1, 4, 15, 16, 20, 100])
def test_it_is_torchs_own_in_torch_and_exported(tmp_path: Path, width: int) -> None:
    torch.manual_seed(width)
    ours, theirs = LayerNorm(width).eval(), nn.LayerNorm(width).eval()
    nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    names = {"input_names": ["rows"], "output_names": ["normal"]}
    path = tmp_path / "norm.onnx"
    free = {"rows": {0: "batch", 1: "length"}}
    example = torch.randn(2, 3, width)
    with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
        torch.onnx.export(
            ours, (example,), path, dynamo=False, opset_version=17, dynamic_axes=free, **names
        )
    backend = open_backend("openvino", path, precision="f32", threads=1)

    for batch, length in ((1, 24), (3, 7), (2, 150)):
        rows = 100 * torch.randn(batch, length, width)
        wanted = theirs.double()(rows.double())
        seen = torch.from_numpy(backend.run({"rows": rows.numpy()})["normal"])
        for result in (ours(rows), seen):
            assert torch.allclose(result.double(), wanted, rtol=0, atol=1e-4)
    backend.close()
