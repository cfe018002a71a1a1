"""Chunks decoded in the GPU's video decoder: the pixels of the CPU, and no falling back."""

import numpy as np
import pytest
from av.codec.hwaccel import hwdevices_available

from engine.grid import Grid
from engine.spec import FrameGeometry
from engine.video.frames import PyAvDecoder
from tests.support.videos import a_chunk, has_encoder, make_video

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.usefixtures("toolkit")]

GEOMETRY = FrameGeometry(resize_px=160, crop_px=160)
GRID = Grid(fps=25, snippet_frames=16, stride_frames=8)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("size", [(320, 240), (1920, 1080)])
def test_the_gpu_decodes_to_the_pixels_of_the_cpu(codec: str, size: tuple[int, int]) -> None:
    if "cuda" not in hwdevices_available():
        pytest.skip("FFmpeg was built without CUDA")
    if not has_encoder(codec):
        pytest.skip(f"there is no {codec} encoder here")
    chunk = a_chunk(make_video(codec=codec, n_frames=50, size=size, gop=50, b_frames=0))
    wanted = PyAvDecoder(GEOMETRY, GRID).decode(chunk)
    # Asked for directly it has nothing to fall back to: it decodes on the GPU, or raises.
    on_gpu = PyAvDecoder(GEOMETRY, GRID, gpu=0)
    for _ in range(3):  # a decoder of the GPU is opened anew for each chunk
        seen = on_gpu.decode(chunk)
        assert wanted.n_decoded == seen.n_decoded
        assert np.array_equal(wanted.pts_us, seen.pts_us)
        # The same picture, but its chroma comes interleaved, and is converted by other code.
        off = np.abs(wanted.rgb.astype(np.int16) - seen.rgb.astype(np.int16))
        assert off.mean() < 1
        assert off.max() <= 8
    on_gpu.close()
