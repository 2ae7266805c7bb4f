"""Decompressing a layer as a stream: gzip of any number of members, zstd of any number of frames, or none.

What the bytes are decides, as in every container tool; a media type that promises compression over bytes that are not
compressed is refused. Whether the result is right is for the diff id to say. A stream that is cut off, or that expands
beyond ``Limits.ratio``, is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol

from adyton.errors import MalformedImage
from adyton.image import limits as bounds
from adyton.image.limits import Limits
from adyton.image.media_types import Compression

PIECE = 512 << 10
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after one byte 0x50 to 0x5f


class _Decoder(Protocol):
    """One gzip member or zstd frame: the interface that both libraries share with the standard library's."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def kind_of(start: bytes, stated: Compression) -> Compression:
    """How a layer is compressed, from its first four bytes and what its media type says."""
    if start.startswith(_GZIP):
        return "gzip"
    if start.startswith(_ZSTD) or (start[1:4] == _SKIPPABLE and start[0] >> 4 == 5):
        return "zstd"
    if stated != "none":
        raise _broken(f"the media type says {stated}, the bytes are something else")
    return "none"


def decompressed(
    pieces: Iterable[bytes], stated: Compression, limits: Limits = bounds.DEFAULT
) -> Generator[bytes, None, None]:
    """The uncompressed bytes of ``pieces``, in pieces of at most ``PIECE`` bytes where it decompresses."""
    source = iter(pieces)
    start = b""
    while len(start) < 4 and (more := next(source, None)) is not None:
        start += more
    kind = kind_of(start, stated)
    if kind == "none":
        if start:
            yield start
        yield from source
        return
    decoder = _gzip if kind == "gzip" else _zstd(limits.window_bytes)
    read = given = 0
    for piece in _members(start, source, kind, decoder):
        if isinstance(piece, int):
            read += piece
            continue
        given += len(piece)
        if given > limits.ratio_free_bytes and given > limits.ratio * read:
            raise limits.exceeded("ratio", limits.ratio, given // max(read, 1))
        yield piece


def _members(
    start: bytes, source: Iterator[bytes], kind: Compression, make: Callable[[], _Decoder]
) -> Iterator[bytes | int]:
    """Output pieces, and before them as a number how many more bytes of input were taken."""
    decoder: _Decoder | None = make()  # None between two members
    data = start
    while True:
        yield len(data)
        while True:
            if decoder is None:
                data = data.lstrip(b"\0") if kind == "gzip" else data  # gzip files may be padded with zeros
                if not data:
                    break
                decoder = make()
            try:
                piece = decoder.decompress(data, PIECE)
            except Exception as error:
                raise _broken(f"{kind} data is damaged") from error
            data = b""
            if decoder.eof:
                data = decoder.unused_data
                decoder = None
            if piece:
                yield piece
            if decoder is not None and decoder.needs_input:
                break
        following = next(source, None)
        if following is None:
            break
        data = following
    if decoder is not None:
        raise _broken(f"{kind} data is cut off")


def _gzip() -> _Decoder:
    from isal import igzip_lib

    decoder: _Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return decoder


def _zstd(window: int) -> Callable[[], _Decoder]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    options = {int(zstd.DecompressionParameter.window_log_max): max(10, window.bit_length() - 1)}

    def make() -> _Decoder:
        decoder: _Decoder = zstd.ZstdDecompressor(options=options)
        return decoder

    return make


def _broken(what: str) -> MalformedImage:
    return MalformedImage(
        f"a layer cannot be decompressed: {what}", code="layer_compression", spec="RFC 1952; RFC 8878; OCI layer.md"
    )
