"""Bits of a unit of H.264, read from its front."""

_MOST_ZEROS = 32


class Bits:
    """Reads a unit's payload from its front; past its end, all is ``ValueError``."""

    def __init__(self, escaped: bytes) -> None:
        content = escaped.replace(b"\x00\x00\x03", b"\x00\x00")
        self._rest = int.from_bytes(content, "big")
        self._n_rest = 8 * len(content)

    def fixed(self, n_bits: int) -> int:
        """A number of so many bits."""
        if n_bits > self._n_rest:
            raise ValueError(n_bits)
        self._n_rest -= n_bits
        value = self._rest >> self._n_rest
        self._rest &= (1 << self._n_rest) - 1
        return value

    def exp_golomb(self, most: int = 1 << _MOST_ZEROS) -> int:
        """A number in the standard's code of changing length, ue(v); more is ``ValueError``."""
        n_zeros = self._n_rest - self._rest.bit_length()
        value = self.fixed(2 * n_zeros + 1) - 1
        if value > most:
            raise ValueError(value)
        return value
