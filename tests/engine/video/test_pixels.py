"""Pictures of any size and format come out as one pass of swscale into RGB gives them."""

import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from hypothesis import given
from hypothesis import strategies as st

from engine.spec import FrameGeometry
from engine.video.pixels import FrameConverter

SIDE_PX = 48
FORMATS = (
    *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "nv12", "gray", "yuv420p10le"),
    *("yuv422p10le", "p010le", "yuyv422", "rgb24", "gbrp", "yuva420p"),
)
one_pass = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


def noise(form: str, width: int, height: int, seed: int) -> VideoFrame:
    """A frame in which each sample is anything that its format can hold."""
    rng = np.random.default_rng(seed)
    grey = np.zeros((height, width, 3), np.uint8)
    frame = VideoFrame.from_ndarray(grey, format="rgb24").reformat(format=form)
    bits = {"yuv420p10le": 10, "yuv422p10le": 10, "p010le": 10}.get(form, 8)
    for plane in frame.planes:
        if bits == 8:
            plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
        else:
            samples = rng.integers(0, 1 << bits, plane.buffer_size // 2, np.uint16)
            plane.update((samples << (6 if form == "p010le" else 0)).astype("<u2").tobytes())
    return frame


@pytest.mark.parametrize("form", FORMATS)
@given(
    width=st.integers(2, 200),
    height=st.integers(2, 200),
    seed=st.integers(0, 2**32 - 1),
    colours=st.sampled_from([None, Colorspace.ITU709, Colorspace.ITU601]),
    depth=st.sampled_from([ColorRange.MPEG, ColorRange.JPEG]),
)
def test_a_picture_is_the_same_to_the_bit(
    form: str, width: int, height: int, seed: int, colours: Colorspace | None, depth: ColorRange
) -> None:
    frame = noise(form, width, height, seed)
    if colours is not None:
        frame.colorspace = colours
    frame.color_range = depth
    shrink = SIDE_PX / max(width, height)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    wanted = VideoReformatter().reformat(frame, *size, "rgb24", interpolation=one_pass, threads=1)

    rgb = FrameConverter(FrameGeometry(SIDE_PX, SIDE_PX, fit="pad")).convert(frame)

    left, top = (SIDE_PX - size[0]) // 2, (SIDE_PX - size[1]) // 2
    shown = rgb[top : top + size[1], left : left + size[0]]
    np.testing.assert_array_equal(wanted.to_ndarray(), shown)
