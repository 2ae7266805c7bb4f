"""Making one connection: host by host, without holding anybody up, and what is set for the session before it is used.

libpq's blocking call would keep the interpreter's lock for as long as a server is silent, and every event loop of the
process with it. So its steps are taken one by one, and names are resolved before.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator

from psycopg import OperationalError, pq
from psycopg.pq import abc

from adyton.errors import AdytonError, ConfigError
from adyton.stores import postgres_errors
from adyton.stores.postgres_address import DatabaseAddress, is_near
from adyton.stores.postgres_link import Link, Lost

SETUP_SECONDS = 3.0
# A statement and a lock may take seconds, a transaction that nobody goes on with holds its locks for two: its broker
# may be gone. The server itself finds a dead peer in about six.
_SESSION = """
SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '2s';
SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 2; SET tcp_user_timeout = 4000;
SET default_transaction_isolation = 'read committed'; SET client_min_messages = warning;
SET bytea_output = hex; SET extra_float_digits = 1; SET DateStyle = 'ISO'
"""
_REFUSED = re.compile(
    r"password|authentication|no pg_hba\.conf|role .* does not exist|database .* does not exist|certificate|SSL|permission"
)


def connect(address: DatabaseAddress) -> Link:
    """A connection that is ready. Waits for a few seconds at most for each host that is named."""
    failed: AdytonError = postgres_errors.unreachable(address.where)
    for parameters in _attempts(address):
        try:
            return _ready(_connected(parameters, address), address)
        except AdytonError as error:
            failed = error
    raise failed


def _attempts(address: DatabaseAddress) -> Iterator[dict[str, str]]:
    """The parameters once for each host, with its address."""
    parameters = address.parameters
    hosts, ports = parameters.get("host", "").split(","), parameters.get("port", "").split(",")
    if "service" in parameters or "hostaddr" in parameters or hosts == [""]:
        yield parameters
        return
    for index, host in enumerate(hosts):
        one = {**parameters, "host": host, "port": ports[index] if len(ports) == len(hosts) else ports[0]}
        if host.startswith(("/", "@")):
            yield one
            continue
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            continue
        for place in dict.fromkeys([item[4][0] for item in found]):
            yield {**one, "hostaddr": str(place)}


def _connected(parameters: dict[str, str], address: DatabaseAddress) -> abc.PGconn:
    seconds = parameters.get("connect_timeout", "")
    until = time.monotonic() + (int(seconds) if seconds.isdigit() and int(seconds) else SETUP_SECONDS)
    connection = pq.PGconn.connect_start(address.conninfo(parameters))
    try:
        while connection.status != pq.ConnStatus.BAD:
            turn = connection.connect_poll()
            if turn == pq.PollingStatus.OK:
                return connection
            if turn == pq.PollingStatus.FAILED:
                break
            waiting = select.poll()
            waiting.register(connection.socket, select.POLLIN if turn == pq.PollingStatus.READING else select.POLLOUT)
            left = until - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                raise postgres_errors.unreachable(address.where, "it does not answer in time")
        raise _failed(connection.get_error_message(), address.where)
    except BaseException:
        connection.finish()
        raise


def _ready(connection: abc.PGconn, address: DatabaseAddress) -> Link:
    _check_tls(connection)
    link = Link(connection, address.where)
    try:
        link.run([(one.strip(), ()) for one in _SESSION.split(";")], SETUP_SECONDS)
    except (Lost, OperationalError) as error:
        link.close()
        raise postgres_errors.unreachable(address.where) from error
    except BaseException:
        link.close()
        raise
    return link


def _check_tls(connection: abc.PGconn) -> None:
    """A service file may name another machine and say nothing of TLS: libpq then takes what it gets."""
    used = {one.keyword: one.val for one in connection.info}
    if used.get(b"sslmode") in {b"allow", b"prefer"} and not is_near(connection.host.decode()):
        connection.finish()
        raise ConfigError(
            "the database's server is on another machine and is not checked",
            code="database_address",
            field="sslmode",
            expected="verify-full, or a weaker one in words",
            got=(used[b"sslmode"] or b"").decode(),
            hint="write sslmode=verify-full and sslrootcert=FILE into the service file",
        )


def _failed(said: str, where: str) -> AdytonError:
    text = " ".join(said.split())[:300]
    if _REFUSED.search(text) and "server closed" not in text:
        return ConfigError(
            f"the database does not let the broker in: {text}",
            code="store_unusable",
            field=where,
            hint="user, password file, certificate and pg_hba.conf; its own log says more",
        )
    return postgres_errors.unreachable(where, text)
