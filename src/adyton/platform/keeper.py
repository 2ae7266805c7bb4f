"""Keeps instances: starts one, follows what its agent says, answers for it, and clears up after it.

An instance is over when its first process is gone, and only then is its end told: by that time the kernel has ended
every process of its namespaces and dropped its mounts, and its control groups are removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from adyton.errors import AdytonError, MalformedRequest, TooMany, Unavailable
from adyton.platform import cgroups, offers
from adyton.platform.connection import Connection
from adyton.platform.guest import LoadedGuest
from adyton.platform.instances import ENDED, KILLED, Event, Live, Row, Table
from adyton.platform.logbook import Logbook
from adyton.platform.processor import Launch, SecureProcessor
from adyton.platform.settings import Settings
from adyton.protocol import devtee, workload
from adyton.protocol.devtee import Exited, Failed, Phase, ReportRequest, Run, Running, Signal, Start

MAX_INSTANCES = 512
_GRACE = 5.0  # seconds from an agent's last word to its end
_KILL_PATIENCE = 2.0  # seconds for an agent to carry KILL out before it is killed itself
FAILED_STATUS = 125


class Keeper:
    """Everything that lives between a launch and its end. Used from the event loop only."""

    def __init__(
        self,
        settings: Settings,
        guest: LoadedGuest,
        processor: SecureProcessor,
        clock: Callable[[], datetime],
    ) -> None:
        self.table = Table(settings.instances)
        self._settings = settings
        self._guest = guest
        self._processor = processor
        self._clock = clock

    async def start(self, run: Run, descriptors: Sequence[int], watcher: asyncio.Queue[Event | None]) -> Row:
        """Start an instance. ``descriptors``: the caller's three streams, unless detached; they stay the caller's.

        ``watcher`` gets every event and then ``None``. What cannot be started raises and leaves nothing behind.
        """
        document = workload.parse(run.document.encode("utf-8"))
        offers.check_name(run.name)
        volumes = offers.volumes(run, document.workload, self._settings.volumes)
        if len(self.table.live) >= MAX_INSTANCES:
            raise TooMany("this many instances run already", code="too_many_instances", retry_after=10)
        if not run.detach and len(descriptors) != 3:
            raise MalformedRequest("a caller that stays brings three descriptors", code="descriptors_missing")
        identity = secrets.token_hex(16)
        row = Row(
            devtee.Instance(
                id=identity,
                name=run.name or identity[:12],
                image=document.workload.image,
                command=document.workload.command,
                host_data=document.digest.hex,
                state="starting",
                created=self._clock().isoformat(timespec="seconds"),
            ),
            logs=run.detach and document.workload.logs == "host",
        )
        self.table.add(row)
        try:
            live = self._spawn(row, run, descriptors)
        except BaseException:
            self.table.forget(identity)
            raise
        live.watchers.append(watcher)
        self.table.live[identity] = live
        live.task = asyncio.create_task(self._keep(row, live, self._processor.launch(document), remove=run.remove))
        order = [str(self._settings.mount_point), str(self._settings.private_size), str(self._guest.device.path)]
        order += [
            str(self._settings.store),
            *(word for v in volumes for word in ("ro" if v.read_only else "rw", str(v.source))),
        ]
        begin = Start(
            instance=identity,
            document=run.document,
            run=msgspec.structs.replace(run, document=""),
            volumes={volume.path: f"/volumes/{number}" for number, volume in enumerate(volumes)},
        )
        with contextlib.suppress(Unavailable):  # it is gone already: its end will be told
            await live.channel.send_raw("\0".join(order).encode("utf-8", "surrogateescape"))
            await live.channel.send(begin)
        return row

    async def stop(self, row: Row, patience: float) -> None:
        """The image's stop signal to the workload, after ``patience`` seconds KILL; returns when the instance is over."""
        live = self.table.live.get(row.instance.id)
        if live is None:
            return
        for number, seconds in ((devtee.STOP, max(patience, 0.0)), (9, _KILL_PATIENCE)):
            with contextlib.suppress(Unavailable, TimeoutError):
                await asyncio.wait_for(live.channel.send(Signal(number)), 1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(live.over.wait(), seconds)
                return
        await self.kill(row)

    async def kill(self, row: Row) -> None:
        """End an instance at once; returns when it is over."""
        live = self.table.live.get(row.instance.id)
        if live is not None:
            live.last = live.last or Exited(KILLED)
            live.kill()
            await live.over.wait()

    async def kill_all(self) -> None:
        """End every instance."""
        await asyncio.gather(*(self.kill(self.table.find(identity)) for identity in list(self.table.live)))

    def _spawn(self, row: Row, run: Run, descriptors: Sequence[int]) -> Live:
        ours, theirs = socket.socketpair()
        book: Logbook | None = None
        mine: list[int] = []
        try:
            if run.detach:
                mine.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                streams = (mine[0], mine[0], mine[0])
                if row.logs:
                    book = Logbook(self.table.log_path(row.instance.id))
                    mine += book.open_streams()
                    streams = (mine[0], mine[1], mine[2])
            else:
                streams = (descriptors[0], descriptors[1], descriptors[2])
            pid = self._guest.nursery.start(streams, theirs.fileno())
        except BaseException:
            ours.close()
            if book is not None:
                book.close()
            raise
        finally:
            theirs.close()
            for descriptor in mine:
                os.close(descriptor)
        return Live(pid=pid, channel=Connection(ours), book=book)

    async def _keep(self, row: Row, live: Live, launch: Launch, *, remove: bool) -> None:
        """From launch to end."""
        talk = asyncio.create_task(self._follow(row, live, launch))
        talk.add_done_callback(lambda task: live.kill() if not task.cancelled() and task.exception() else None)
        status = await _end_of(live.pid)
        live.gone = True
        await asyncio.wait({talk}, timeout=_GRACE)  # what it said last may still be on its way
        talk.cancel()
        live.channel.close()
        cgroups.remove(row.instance.id)
        if live.book is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(live.book.ended.wait(), _GRACE)
            live.book.close()
        last = live.last or Failed(_lost(status))
        del self.table.live[row.instance.id]
        try:
            if remove:
                self.table.forget(row.instance.id)
            elif isinstance(last, Exited):
                self.table.change(row.instance.id, state="exited", status=last.status)
            else:
                self.table.change(row.instance.id, state="failed", status=FAILED_STATUS, error=last.error)
        except AdytonError:
            pass  # the disk is full: the instance is over all the same
        live.over.set()
        live.tell(last)
        live.tell(None)

    async def _follow(self, row: Row, live: Live, launch: Launch) -> None:
        """Hear the agent out. One that talks nonsense is ended."""
        try:
            while (message := await live.channel.receive(devtee.FROM_AGENT)) is not None:
                if isinstance(message, ReportRequest):
                    await live.channel.send(_answer(launch, message))
                elif isinstance(message, Phase):
                    live.tell(message)
                elif isinstance(message, Running):
                    self.table.change(row.instance.id, state="running", published=message.published)
                    live.tell(message)
                elif live.last is None:
                    live.last = message
                    asyncio.get_running_loop().call_later(_GRACE, live.kill)
        except Unavailable:
            pass  # it is gone; its end says why
        except AdytonError as error:
            live.last = live.last or Failed(failure(error))
            live.kill()

    @property
    def running(self) -> int:
        """How many instances live."""
        return len(self.table.live)

    def listed(self, *, ended: bool) -> list[devtee.Instance]:
        """Rows as ``ps`` shows them."""
        return [row.instance for row in self.table.rows() if ended or row.instance.state not in ENDED]


def _answer(launch: Launch, request: ReportRequest) -> devtee.Report | Failed:
    try:
        return launch.report(request.report_data)
    except MalformedRequest as error:
        return Failed(failure(error))


def failure(error: AdytonError) -> dict[str, object]:
    """An error as ``Failed`` carries it."""
    told: dict[str, object] = json.loads(json.dumps(error.as_dict(), default=str))
    return {**told, "kind": type(error).__name__}


def _lost(status: int) -> dict[str, object]:
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return failure(
        Unavailable("the instance ended without saying why", code="instance_lost", got=how, hint="adyton devtee show")
    )


async def _end_of(pid: int) -> int:
    """Wait until a child is gone; its status, minus the signal's number if one ended it."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 -- it has ended: this does not wait
    return os.waitstatus_to_exitcode(status)
