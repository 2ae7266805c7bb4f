"""How much one layer may be: bounds that stop a bomb long before the machine is full.

The defaults let every image through that people run; a caller with less room hands in less. Limits are about effort and
space, not trust: what stays below them is still checked digest by digest.
"""

from __future__ import annotations

from dataclasses import dataclass

from adyton.errors import MalformedImage

_HINT = "if the image is meant to be this large, raise the limit; otherwise do not run it"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one layer.

    ``unpacked_bytes``: length of the uncompressed tar, and separately the sum of apparent file sizes (holes count).
    ``entries``: entries of the archive and directories that they imply. ``path_bytes`` and ``depth`` bound a name,
    ``extended_bytes`` one extended header, ``extents`` the map of one sparse file. ``ratio`` is uncompressed over
    compressed length, looked at only beyond ``ratio_free_bytes``. ``window_bytes`` is a zstd frame's window.
    """

    unpacked_bytes: int = 64 << 30
    entries: int = 1_000_000
    path_bytes: int = 4096
    depth: int = 256
    extended_bytes: int = 1 << 20
    extents: int = 65_536
    ratio: int = 2_000
    ratio_free_bytes: int = 1 << 30
    window_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if min(getattr(self, name) for name in self.__slots__) < 1:
            raise ValueError("every limit is at least 1")

    def exceeded(self, what: str, limit: int, got: object = None) -> MalformedImage:
        """The error for a layer that is over ``limit``; ``what`` names the member."""
        return MalformedImage(
            f"the layer is over a limit: {what.replace('_', ' ')}",
            code="layer_over_limit",
            field=what,
            expected=f"at most {limit}",
            got=got,
            hint=_HINT,
        )


DEFAULT = Limits()
