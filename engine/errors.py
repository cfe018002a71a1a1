"""Every error the engine raises, classed by what it spoils: the class decides who handles it.

``StreamError``: a chunk, camera or video is bad; count it, reset the camera, go on with the rest.
``DeviceError``: the accelerator or its runtime failed; the process exits 1 and is restarted.
``BundleError``: the model on disk is wrong; the process exits 78 and is *not* restarted.
"""


class S2netdError(Exception):
    """The root of all. Messages name the thing, what was seen, what was wanted, and what to do."""


class StreamError(S2netdError):
    """One chunk, camera or video is bad; every other camera is untouched."""


class CorruptChunkError(StreamError):
    """A chunk that cannot be decoded whole. The decoder that raised it stays usable."""


class RefusedChunkError(CorruptChunkError):
    """A chunk of an unknown container or codec, or one larger than the limits allow."""


class RivalRunError(RefusedChunkError):
    """A chunk of one producer under the name of a camera that another producer serves."""


class DecoderLostError(CorruptChunkError):
    """A chunk that ended its decoder: it took too long or too much memory, or brought a crash."""


class QuarantineError(RefusedChunkError):
    """A chunk of a camera that has done harm too often lately, so that it was not tried."""


class StaleChunkError(StreamError):
    """A chunk whose frames all lie before what was seen: its producer's clock went back."""


class UnreadableVideoError(StreamError):
    """A local video file that cannot be opened or holds no video."""


class LostFootageError(S2netdError):
    """More of a video had to be left out than its user allows; what the rest gave is there."""


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
