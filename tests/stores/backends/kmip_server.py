"""PyKMIP's real server, in a process of its own, by mutual TLS."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import ports
from tests.stores.backends.certificates import Authority
from tests.waiting import until

from adyton.stores.backends.options import KmipOptions as Options

SERVER = """
import sys
from kmip.services.server import KmipServer
place, port, certificate, key, ca = sys.argv[1:]
server = KmipServer(hostname="127.0.0.1", port=int(port), certificate_path=certificate, key_path=key, ca_path=ca,
    auth_suite="TLS1.2", config_path=None, log_path=place + "/kmip.log", policy_path=place, enable_tls_client_auth=True,
    logging_level="ERROR", database_path=place + "/kmip.db")
with server:
    server.serve()
"""


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


@contextmanager
def serving(place: Path, authority: Authority, port: int = 0) -> Iterator[Options]:
    """What reaches a server that keeps its things in ``place``."""
    port = port or ports.reserve()
    certificate, key = authority.issue("kmip")
    mine, my_key = authority.issue("broker", client=True)
    arguments = [str(place), str(port), certificate, key, authority.ca]
    with (place / "out").open("wb") as out:
        server = subprocess.Popen([sys.executable, "-c", SERVER, *arguments], stdout=out, stderr=out)
    try:
        until(lambda: server.poll() is not None or _listens(port), what=(place / "out").read_text)
        assert server.poll() is None, (place / "out").read_text()
        yield Options(
            host="127.0.0.1", port=port, certificate=mine, private_key=my_key, ca_file=authority.ca, seconds=30.0
        )
    finally:
        server.kill()
        server.wait()
