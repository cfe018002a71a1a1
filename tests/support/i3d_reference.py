"""I3D once more, in plain NumPy, from the paper's tables: what the ONNX graph is checked against.

Channels last, batch norm unfolded, a convolution as a sum of shifted matrix products. It shares no
code with ``engine.published.i3d`` and reads the checkpoint's arrays as they are.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[npt.NBitBase]]

# How far two computations of I3D in float32 may lie apart. That a network of 22 layers bounds its
# error at all is out of reach of worst cases; so it was measured what one rounding of every weight
# moves, in float64, on noise: features by 6.2e-7, logits by 5.2e-6. A sum of n products is the
# exact one of weights n roundings off at most, but roundings of either sign add up like the root
# of n (Higham and Mary, SIAM J. Sci. Comput. 41, 2019), here of 27 * 192 terms; and there are two.
FEATURES_APART = 2 * (27 * 192) ** 0.5 * 6.2e-7  # 8.9e-5
LOGITS_APART = 2 * (27 * 192) ** 0.5 * 5.2e-6  # 7.5e-4

MIXED = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
POOLED_BEFORE = {
    "3b": ((1, 3, 3), (1, 2, 2)),
    "4b": ((3, 3, 3), (2, 2, 2)),
    "5b": ((2, 2, 2),) * 2,
}


def features_and_logits(
    snippet: npt.NDArray[np.uint8], arrays: Mapping[str, Array]
) -> tuple[Array, Array]:
    """uint8 (16, 224, 224, 3) → (1024,) and (400,), computed in the arrays' own precision."""
    precision = next(iter(arrays.values())).dtype
    net = snippet.astype(precision) / 127.5 - 1
    net = unit(net, arrays, "Conv3d_1a_7x7", 2)
    net = max_pool(net, (1, 3, 3), (1, 2, 2))
    net = unit(net, arrays, "Conv3d_2b_1x1")
    net = unit(net, arrays, "Conv3d_2c_3x3")
    for name in MIXED:
        if name in POOLED_BEFORE:
            net = max_pool(net, *POOLED_BEFORE[name])
        net = inception(net, arrays, f"Mixed_{name}")
    assert net.shape == (2, 7, 7, 1024)
    pooled = net.mean(axis=(0, 1, 2))  # the published 2x7x7 window is the whole map here
    head = "params/Logits/Conv3d_0c_1x1/Conv_0"
    logits = pooled @ arrays[f"{head}/kernel"][0, 0, 0] + arrays[f"{head}/bias"]
    return pooled, logits


def inception(net: Array, arrays: Mapping[str, Array], path: str) -> Array:
    one = unit(net, arrays, f"{path}/Branch_1/Conv3d_0a_1x1")
    two = unit(net, arrays, f"{path}/Branch_2/Conv3d_0a_1x1")
    three = max_pool(net, (3, 3, 3), (1, 1, 1))
    return np.concatenate(
        [
            unit(net, arrays, f"{path}/Branch_0/Conv3d_0a_1x1"),
            unit(one, arrays, f"{path}/Branch_1/Conv3d_0b_3x3"),
            unit(two, arrays, f"{path}/Branch_2/Conv3d_0b_3x3"),
            unit(three, arrays, f"{path}/Branch_3/Conv3d_0b_1x1"),
        ],
        axis=-1,
    )


def unit(net: Array, arrays: Mapping[str, Array], path: str, stride: int = 1) -> Array:
    kernel = arrays[f"params/{path}/Conv_0/kernel"]
    mean = arrays[f"batch_stats/{path}/BatchNorm_0/mean"][0]
    variance = arrays[f"batch_stats/{path}/BatchNorm_0/var"][0]
    shift = arrays[f"params/{path}/BatchNorm_0/bias"]
    normal = (convolve(net, kernel, stride) - mean) / np.sqrt(variance + 1e-3) + shift
    return np.maximum(normal, 0)


def convolve(net: Array, kernel: Array, stride: int) -> Array:
    size = kernel.shape[:3]
    strides = (stride,) * 3
    padded = pad_same(net, size, strides, 0)
    out_size = tuple(-(-n // stride) for n in net.shape[:3])
    total = np.zeros((*out_size, kernel.shape[-1]), kernel.dtype)
    for offset in np.ndindex(*size):
        total += shifted(padded, offset, strides, out_size) @ kernel[offset]
    return total


def max_pool(net: Array, size: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    padded = pad_same(net, size, strides, -np.inf)
    out_size = tuple(-(-n // step) for n, step in zip(net.shape[:3], strides, strict=True))
    views = [shifted(padded, offset, strides, out_size) for offset in np.ndindex(*size)]
    return np.maximum.reduce(views)


def shifted(
    padded: Array, offset: tuple[int, ...], strides: tuple[int, ...], out_size: tuple[int, ...]
) -> Array:
    where = (
        slice(first, first + (n - 1) * step + 1, step)
        for first, step, n in zip(offset, strides, out_size, strict=True)
    )
    return padded[tuple(where)]


def pad_same(net: Array, size: tuple[int, ...], strides: tuple[int, ...], value: float) -> Array:
    """TensorFlow's SAME: as little as gives ceil(n / stride) outputs, the odd one at the end."""
    missing = [
        max((-(-n // step) - 1) * step + width - n, 0)
        for n, step, width in zip(net.shape[:3], strides, size, strict=True)
    ]
    return np.pad(net, [*((m // 2, m - m // 2) for m in missing), (0, 0)], constant_values=value)
