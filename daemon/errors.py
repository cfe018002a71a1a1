"""The daemon's own errors, and the exit codes that service managers act on."""

import errno

from engine.errors import S2netdError, StreamError

EXIT_FAILED = 1
EXIT_LOSSY = 3  # all was done, but more footage was left out than allowed
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h; systemd's unit does not restart the daemon then


class ConfigError(S2netdError):
    """What the operator wrote cannot work; the process exits 78 and is *not* restarted."""


class TransportError(S2netdError):
    """A broker, folder or database cannot be reached, after retries and up to a deadline."""


class RefusedRecordError(TransportError):
    """A record that the transport will never take, however often it is tried."""


class DiskError(TransportError):
    """A disk is full, or fails; nothing was kept, and a later try may work."""


# Faults of a disk or of a file server that pass. A place that is read-only or forbidden is not
# among them: at the start it is a wrong configuration.
PASSING_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN}
)


class StaleOwnerError(S2netdError):
    """Another process owns the partition now, so nothing more of it may be kept."""


class ForeignCancellationError(TransportError):
    """What a task waited for was cancelled, but the task itself was not."""


class MalformedRecordError(StreamError):
    """A record's headers cannot be read, or contradict each other, its key or its payload."""


class CameraFailedError(StreamError):
    """An unexpected error while a chunk was processed; it cost the camera its run."""
