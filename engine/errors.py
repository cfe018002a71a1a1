"""Every error the engine raises, classed by blast radius: the class decides who handles it.

``StreamError``: this chunk or stream; count it, reset the stream, go on with the others.
``DeviceError``: the accelerator or its runtime; the process exits 1 and is restarted.
``BundleError``: the model on disk is wrong; the process exits 78 and is *not* restarted.
"""


class S2netdError(Exception):
    """The root. A message names the thing, the value seen, the value wanted, and what to do."""


class StreamError(S2netdError):
    """One chunk or stream is bad; every other stream is untouched."""


class CorruptChunkError(StreamError):
    """A chunk that cannot be decoded whole. The decoder that raised it stays usable."""


class RefusedChunkError(CorruptChunkError):
    """A chunk never opened: unknown container or codec, or larger than the limits allow."""


class StaleChunkError(StreamError):
    """A chunk whose frames all lie before what was seen: its producer's clock went back."""


class UnreadableVideoError(StreamError):
    """A local video file that cannot be opened or holds no video."""


class DeviceError(S2netdError):
    """An inference backend failed in a way that its process cannot repair."""


class BundleError(S2netdError):
    """A model bundle is missing, damaged, foreign, or of another version."""


class WeightsError(BundleError):
    """Published weights could not be fetched, verified or converted."""


class DataError(S2netdError):
    """Features, tags, annotations or a training configuration that cannot be used."""


class SnapshotError(S2netdError):
    """A session snapshot is unreadable or was written by another version or bundle."""
