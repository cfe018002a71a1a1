"""The head of a Matroska or WebM stream, which live ones send once, and clusters without it.

Source: RFC 8794 (EBML) and RFC 9559 (Matroska).
"""

_HEAD, _SEGMENT, _INFO, _TRACKS, _CLUSTER = (
    bytes.fromhex(name) for name in ("1a45dfa3", "18538067", "1549a966", "1654ae6b", "1f43b675")
)
_UNKNOWN_SIZE = b"\x01" + b"\xff" * 7  # of a segment that goes on until another begins
_MOST_ID_BYTES, _MOST_SIZE_BYTES = 4, 8
_MOST_ELEMENTS = 64  # before the first cluster; streams have a handful


def is_cluster(payload: bytes) -> bool:
    """Does a payload begin with a cluster, and so lack its head?"""
    return payload.startswith(_CLUSTER)


def stream_head(payload: bytes) -> bytes | None:
    """What clusters need before them; None: the payload has no such head.

    Where things lie in the file (its index, say) holds for no other clusters and is left out, and
    so is the length of it all.
    """
    first = _element(payload, 0)
    if first is None or first[0] != _HEAD:
        return None
    segment = _element(payload, first[2])
    if segment is None or segment[0] != _SEGMENT:
        return None
    parts, at = {}, segment[1]
    for _ in range(_MOST_ELEMENTS):
        element = _element(payload, at)
        if element is None or element[0] == _CLUSTER:
            break
        kind, _, end = element
        if kind in {_INFO, _TRACKS}:
            parts[kind] = payload[at:end]
        at = end
    if _TRACKS not in parts:
        return None
    return payload[: first[2]] + _SEGMENT + _UNKNOWN_SIZE + b"".join(parts.values())


def _element(payload: bytes, at: int) -> tuple[bytes, int, int] | None:
    """An element's id, and where its content begins and ends; None: it is none.

    One of unknown size ends where the payload does.
    """
    n_id = _n_bytes(payload, at, _MOST_ID_BYTES)
    n_size = _n_bytes(payload, at + n_id, _MOST_SIZE_BYTES)
    begin = at + n_id + n_size
    if not (n_id and n_size) or begin > len(payload):
        return None
    bits = 7 * n_size
    size = int.from_bytes(payload[at + n_id : begin], "big") & ((1 << bits) - 1)
    end = len(payload) if size == (1 << bits) - 1 else begin + size
    return payload[at : at + n_id], begin, min(end, len(payload))


def _n_bytes(payload: bytes, at: int, most: int) -> int:
    """How long the number at a place is, as its first byte tells; 0: there is none."""
    first = payload[at : at + 1]
    n_bytes = 9 - first[0].bit_length() if first else 0
    return n_bytes if n_bytes <= most else 0
