"""The platform service: the control socket, who may use it, and what each request does.

It ends on TERM, on ``Shutdown``, or after a while without anything to do if it was started so. However it ends, killed
included, its instances end with it: each is tied to it by the kernel, and mounts, loop device and sealed memory go when
their last user has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from datetime import datetime

from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, Conflict, MalformedRequest, NotPermitted, Unavailable
from adyton.platform import cgroups
from adyton.platform.connection import Connection
from adyton.platform.guest import LoadedGuest
from adyton.platform.instances import Event, Live, Row
from adyton.platform.keeper import Keeper, failure
from adyton.platform.logbook import Reader
from adyton.platform.processor import SecureProcessor
from adyton.platform.settings import Settings
from adyton.protocol import devtee
from adyton.protocol.devtee import Done, Exited, Failed, Resize, Run, Running, Signal, Started

_CRL_RENEWAL = 24 * 3600.0


class Service:
    """One running service."""

    def __init__(
        self, settings: Settings, root: DevelopmentRoot, guest: LoadedGuest, clock: Callable[[], datetime]
    ) -> None:
        self.keeper = Keeper(settings, guest, SecureProcessor(root, guest.measurement), clock)
        self.about = devtee.Platform(
            root_fingerprint=root.fingerprint,
            measurement=guest.measurement.hex(),
            guest=str(guest.path),
            chip_id=root.chip_id.hex(),
            pid=os.getpid(),
        )
        self._settings = settings
        self._root = root
        self._clock = clock
        self._ending = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._last_use = asyncio.get_running_loop().time()
        for number in (signal.SIGTERM, signal.SIGINT):  # before anybody is told that it can be asked, and so ended
            asyncio.get_running_loop().add_signal_handler(number, self._ending.set)

    async def serve(self, listener: socket.socket) -> None:
        """Serve until the end; every instance is over when this returns."""
        loop = asyncio.get_running_loop()
        jobs = [asyncio.create_task(job) for job in (self._accept(listener), self._renew_crl(), self._idle())]
        try:
            await self._ending.wait()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):  # once is enough: the end must not be cut short
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
            for task in jobs:
                task.cancel()
            listener.close()
            await self.keeper.kill_all()
            cgroups.remove_parents()
            if self._telling:
                await asyncio.wait(self._telling, timeout=1.0)  # let the last events out
            for task in self._connections:
                task.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            peer, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(self._converse(Connection(peer)))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _converse(self, connection: Connection) -> None:
        """One peer, request after request. An error of a request is its answer; a broken frame ends the conversation."""
        try:
            connection.check_peer()
            while (request := await connection.receive(devtee.CONTROL_REQUEST)) is not None:
                try:
                    await self._carry_out(connection, request)
                except Unavailable:
                    raise
                except AdytonError as error:
                    await connection.send(Failed(failure(error)))
        except (MalformedRequest, NotPermitted) as error:
            with contextlib.suppress(Unavailable):
                await connection.send(Failed(failure(error)))
        except Unavailable:
            pass  # the peer has gone
        finally:
            connection.close()
            self._last_use = asyncio.get_running_loop().time()

    async def _carry_out(self, connection: Connection, request: devtee.ControlRequest) -> None:
        table = self.keeper.table
        match request:
            case Run():
                await self._run(connection, request)
            case devtee.Attach():
                await self._attach(connection, table.find(request.instance))
            case devtee.List():
                await connection.send(devtee.Instances(self.keeper.listed(ended=request.all)))
            case devtee.Logs():
                await self._logs(connection, table.find(request.instance), follow=request.follow)
            case devtee.Stop():
                await self.keeper.stop(table.find(request.instance), request.timeout)
                await connection.send(Done())
            case devtee.Remove():
                row = table.find(request.instance)
                if request.force:
                    await self.keeper.kill(row)
                table.forget(row.instance.id)
                await connection.send(Done())
            case devtee.About():
                await connection.send(self.about)
            case devtee.Shutdown():
                if self.keeper.running and not request.force:
                    raise Conflict(
                        f"{self.keeper.running} instances are running",
                        code="instances_running",
                        hint="adyton stop them first, or --force",
                    )
                await connection.send(Done())
                self._ending.set()
            case _:
                raise MalformedRequest("this message belongs to a run", code="frame_unexpected")

    async def _run(self, connection: Connection, run: Run) -> None:
        """Start, then tell the caller everything. A caller that stays and goes away takes its instance with it."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        descriptors = connection.take_descriptors()
        try:
            row = await self.keeper.start(run, descriptors, events)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        try:
            await connection.send(Started(row.instance.id, row.instance.host_data))
            await self._tell(connection, row, events, until_running=run.detach)
        finally:
            if not run.detach:
                await self.keeper.kill(row)  # nothing to do where it has ended

    async def _attach(self, connection: Connection, row: Row) -> None:
        live = self.keeper.table.live.get(row.instance.id)
        if live is None:
            await connection.send(Failed(row.error) if row.error is not None else Exited(row.instance.status or 0))
            return
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        live.watchers.append(events)
        await self._tell(connection, row, events, until_running=False)

    async def _tell(
        self, connection: Connection, row: Row, events: asyncio.Queue[Event | None], *, until_running: bool
    ) -> None:
        """Pass events on until the last, and the caller's signals and sizes the other way."""
        live = self.keeper.table.live.get(row.instance.id)
        here = asyncio.current_task()
        assert here is not None  # noqa: S101 -- this is a coroutine
        self._telling.add(here)
        listening = asyncio.create_task(_listen(connection, live)) if live is not None else None
        try:
            while True:
                waiting = asyncio.create_task(events.get())
                await asyncio.wait({waiting, *((listening,) if listening else ())}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    assert listening is not None  # noqa: S101 -- it is the one that is done
                    listening.result()
                    raise Unavailable("the caller has gone", code="peer_gone")
                event = waiting.result()
                if event is None:
                    return
                await connection.send(event)
                if until_running and isinstance(event, Running):
                    await connection.send(Done())
                    return
        finally:
            self._telling.discard(here)
            if live is not None and events in live.watchers:
                live.watchers.remove(events)
            if listening is not None:
                listening.cancel()
                await asyncio.wait({listening})  # it must have let go of the socket before anybody else reads it
                if not listening.cancelled():
                    listening.exception()  # seen, whatever it was: the instance's end counts

    async def _logs(self, connection: Connection, row: Row, *, follow: bool) -> None:
        if not row.logs:
            raise NotPermitted(
                "what this instance wrote was not kept",
                code="logs_not_kept",
                got=row.instance.name,
                hint='kept is what runs detached (adyton run -d) under a document with logs = "host"',
            )
        reader = Reader(self.keeper.table.log_path(row.instance.id))
        while True:
            live = self.keeper.table.live.get(row.instance.id)
            book = live.book if live is not None else None
            version = book.version if book is not None else 0
            over = book is None or book.ended.is_set()
            for output in reader.more():
                await connection.send(output)
            if book is None or over or not follow:
                break
            await book.wait(version)
        await connection.send(Done())

    async def _renew_crl(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # a full disk: the CRL in place is good for weeks
                self._root.renew_crl(self._clock())
            await asyncio.sleep(_CRL_RENEWAL)

    async def _idle(self) -> None:
        patience = self._settings.idle_exit
        if patience is None:
            return
        loop = asyncio.get_running_loop()
        while True:
            if self.keeper.running or self._connections:
                self._last_use = loop.time()
            if loop.time() - self._last_use >= patience:
                self._ending.set()
                return
            await asyncio.sleep(min(1.0, max(patience / 4, 0.05)))


async def _listen(connection: Connection, live: Live) -> None:
    """Pass the caller's signals and sizes on to the agent until the caller has gone."""
    while (message := await connection.receive(devtee.CONTROL_REQUEST)) is not None:
        if not isinstance(message, Signal | Resize):
            raise MalformedRequest("only signals and sizes may follow a run", code="frame_unexpected")
        with contextlib.suppress(Unavailable):
            await live.channel.send(message)
