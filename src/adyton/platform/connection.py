"""Frames over a Unix stream socket inside the service's event loop, with the descriptors that come along."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TypeVar

import msgspec

from adyton.errors import MalformedRequest, NotPermitted, Unavailable
from adyton.protocol import devtee

_T = TypeVar("_T")
_MAX_DESCRIPTORS = 3
_PIECE = 1 << 16
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Connection:
    """One peer. ``descriptors`` are those received and not yet taken; they are closed with the connection."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self._peer = peer
        self._number = peer.fileno()
        self._buffer = bytearray()
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self.descriptors: list[int] = []

    def check_peer(self) -> None:
        """Only root and the service's own user may talk to it; ``NotPermitted`` for anybody else."""
        found = self._peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(found)
        if user not in {0, os.geteuid()}:
            raise NotPermitted(
                "the development TEE serves its own user only", code="peer_refused", expected=os.geteuid(), got=user
            )

    async def receive(self, decoder: msgspec.json.Decoder[_T]) -> _T | None:
        """The next frame, or ``None`` when the peer has closed. ``MalformedRequest`` for anything that is no frame."""
        while True:
            if len(self._buffer) >= devtee.HEADER.size:
                length = devtee.body_length(bytes(self._buffer[: devtee.HEADER.size]))
                end = devtee.HEADER.size + length
                if len(self._buffer) >= end:
                    body = bytes(self._buffer[devtee.HEADER.size : end])
                    del self._buffer[:end]
                    return devtee.decode(decoder, body)
            if not await self._read():
                if self._buffer:
                    raise MalformedRequest("the peer closed in the middle of a frame", code="frame_malformed")
                return None

    async def send(self, message: msgspec.Struct) -> None:
        """One frame; ``Unavailable`` when the peer has gone."""
        await self._send(devtee.frame(message))

    async def send_raw(self, body: bytes) -> None:
        """One frame that is not of the protocol: the launcher's order."""
        await self._send(devtee.HEADER.pack(len(body)) + body)

    async def _send(self, data: bytes) -> None:
        try:
            async with self._sending:
                await self._loop.sock_sendall(self._peer, data)
        except OSError as error:
            raise Unavailable("the peer has gone", code="peer_gone") from error

    def take_descriptors(self) -> list[int]:
        """What came along; the caller closes them from now on."""
        taken, self.descriptors = self.descriptors, []
        return taken

    def close(self) -> None:
        """Close the socket and every descriptor that nobody took."""
        if self._peer.fileno() >= 0:
            self._loop.remove_reader(self._number)
            self._peer.close()
        for descriptor in self.take_descriptors():
            os.close(descriptor)

    async def _read(self) -> bool:
        """More bytes into the buffer; false at the end of the stream."""
        while True:
            try:
                data, descriptors, flags, _ = socket.recv_fds(
                    self._peer, _PIECE, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                await self._readable()
                continue
            except OSError:
                return False  # reset: as good as closed
            self.descriptors += descriptors
            if flags & socket.MSG_CTRUNC or len(self.descriptors) > _MAX_DESCRIPTORS:
                raise MalformedRequest("more descriptors than three came with a frame", code="too_many_descriptors")
            self._buffer += data
            return bool(data)

    async def _readable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_reader(self._number, wake)
        try:
            await ready
        finally:
            if self._peer.fileno() >= 0:  # closed meanwhile: the number may be somebody else's
                self._loop.remove_reader(self._number)
