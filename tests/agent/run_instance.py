"""An agent without the platform service: run under ``unshare --mount --pid --ipc --fork --mount-proc``, channel inherited.

Arguments: the channel's descriptor, the directory that plays the instance's root, then the image's layers, top first.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from adyton.agent import kernel
from adyton.agent.life import Layout, live, prepare_process
from adyton.agent.rootfs import Layers
from adyton.agent.supervisor import stop_signal

channel = socket.socket(fileno=int(sys.argv[1]))
base, layers = Path(sys.argv[2]), tuple(Path(layer) for layer in sys.argv[3:])
kernel.mount("tmpfs", str(base / "private"), "tmpfs", kernel.MS_NOSUID, "size=64m,mode=700")
prepare_process()
layout = Layout(
    guest=base / "guest",
    store=base / "store",
    private=base / "private",
    volumes=Path(os.environ["VOLUMES"]),
    state=base / "private" / "oci",
)


def obtain(*_: object) -> Layers:
    if slow := os.environ["SLOW"]:
        Path(slow).read_bytes()  # a pipe that nobody writes to: a pull that hangs
    if os.environ["STOP_SIGNAL"].startswith("raise:"):
        raise ValueError(os.environ["STOP_SIGNAL"])  # a defect of the agent's
    return Layers(layers, bool(os.environ["ENCRYPTED"]), stop_signal(os.environ["STOP_SIGNAL"]))


os._exit(live(channel, layout, obtain))
