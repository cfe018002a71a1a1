"""What reading a damaged ``.npy`` or ``.npz`` file may raise: there is no one error for it."""

import zipfile
import zlib

# A huge shape, a compression or an encryption nobody has, a bare array where an archive should be:
# all of it was seen for files with a few bytes changed.
NPZ_DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    AttributeError,
    MemoryError,
    RuntimeError,  # and NotImplementedError
    zipfile.BadZipFile,
    zlib.error,
)
