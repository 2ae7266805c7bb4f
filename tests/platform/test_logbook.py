"""What an instance wrote: whole, in order, bounded, readable while it grows."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

from adyton.platform.logbook import Logbook, Reader, remove


def write_all(path: Path, pieces: list[tuple[int, bytes]], *, limit: int) -> Reader:
    """Write through a logbook; a reader that has followed it."""
    reader = Reader(path)
    followed: list[bytes] = []

    async def work() -> None:
        book = Logbook(path, limit)
        ends = book.open_streams()
        for stream, data in pieces:
            version = book.version
            os.write(ends[stream - 1], data)
            await book.wait(version)
            followed.extend(output.data for output in reader.more())
        for end in ends:
            os.close(end)
        await book.ended.wait()

    asyncio.run(work())
    assert b"".join(followed) == b"".join(data for _, data in pieces)
    return reader


def test_a_follower_misses_nothing_when_the_file_is_replaced(tmp_path: Path) -> None:
    pieces = [(1 + number % 2, f"{number:05d}".encode() * 20) for number in range(200)]
    reader = write_all(tmp_path / "log", pieces, limit=3000)
    assert list(reader.more()) == []


def test_at_most_twice_the_limit_is_kept_the_latest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write_all(path, [(1, bytes([number % 256]) * 100) for number in range(500)], limit=2000)
    kept = list(Reader(path).more())
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2 * (2000 + 105)
    assert kept[-1].data == bytes([499 % 256]) * 100
    assert {output.stream for output in kept} == {"stdout"}
    remove(path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_loses_pieces_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def work() -> None:
        book = Logbook(path)
        ends = book.open_streams()
        for data, size in ((b"first", hard), (b"x" * 1000, 100), (b"last", hard)):
            version = book.version
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (size, hard)
            )  # Python has the signal ignored: EFBIG, or half a write
            os.write(ends[0], data)
            await book.wait(version)
        for end in ends:
            os.close(end)
        await book.ended.wait()

    try:
        asyncio.run(work())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [output.data for output in Reader(path).more()] == [b"first", b"last"]


def test_what_is_no_logbook_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\x01\0\0\0\x01a" + b"\x07\0\0\0\x01b")
    assert [output.data for output in Reader(path).more()] == [b"a"]


def test_a_record_that_is_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write_all(path, [(2, b"whole")], limit=1 << 20)
    with path.open("ab") as file:
        file.write(b"\x01\0\0\0\x05ha")
    reader = Reader(path)
    assert [output.data for output in reader.more()] == [b"whole"]
    with path.open("ab") as file:
        file.write(b"lf!")
    assert [output.data for output in reader.more()] == [b"half!"]
    assert list(Reader(tmp_path / "absent").more()) == []
