"""PyKMIP's real server, in a process of its own, by mutual TLS. Refusals first."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from tests import ports
from tests.stores.backends import kmip_server, laws
from tests.stores.backends.certificates import Authority

from adyton.errors import AdytonError
from adyton.stores.backends.kmip import Kmip
from adyton.stores.backends.options import KmipOptions as Options
from adyton.stores.backends.port import KeyKind, Signing


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kmip")


@pytest.fixture(scope="module")
def authority(place: Path) -> Authority:
    return Authority(place, "ours")


@pytest.fixture(scope="module")
def options(place: Path, authority: Authority) -> Iterator[Options]:
    with kmip_server.serving(place, authority) as given:
        yield given


@pytest.fixture
def kmip(options: Options) -> Iterator[Kmip]:
    holder = Kmip(options)
    yield holder
    holder.close()


def _changed(options: Options, **change: object) -> Options:
    return Options(**{**{name: getattr(options, name) for name in options.__struct_fields__}, **change})


def _code(call: object) -> str:
    assert callable(call)
    with pytest.raises(AdytonError) as caught:
        call()
    return caught.value.code


def test_strangers(options: Options, place: Path, tmp_path: Path) -> None:
    strangers = Authority(tmp_path, "strangers")
    certificate, key = strangers.issue("broker", client=True)
    other = Kmip(_changed(options, certificate=certificate, private_key=key))
    assert _code(other.check) in {"backend_unreachable", "backend_answer_malformed"}  # the server hangs up
    assert _code(Kmip(_changed(options, ca_file=strangers.ca)).check) == "backend_certificate_refused"
    assert _code(Kmip(_changed(options, ca_file=str(tmp_path / "none"))).check) == "backend_file_unreadable"
    Path(key).chmod(0o644)
    assert _code(lambda: Kmip(_changed(options, private_key=key))) == "backend_credential_exposed"


def test_a_server_that_is_down_or_hangs(options: Options) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert _code(Kmip(_changed(options, port=port, seconds=0.2)).check) == "backend_slow"
    assert _code(Kmip(_changed(options, port=ports.reserve(), seconds=20.0)).check) == "backend_unreachable"


def test_values_and_their_laws(kmip: Kmip) -> None:
    laws.secrets(kmip)
    laws.secrets_from_threads(kmip)
    assert kmip.get("acme", laws.ONE, "no pointer") is None


def test_symmetric_keys(kmip: Kmip) -> None:
    laws.symmetric(kmip)
    laws.odd_requests_are_answered(kmip)
    for handle in ("nobody", "999+998", "", "+"):
        laws.absent(kmip, handle)
    assert _code(lambda: kmip.generate(KeyKind.P256, "k")) == "not_by_this_device"
    assert _code(lambda: kmip.import_key(KeyKind.AES_256, "k", bytes(32))) == "not_by_this_device"


def test_signatures(kmip: Kmip) -> None:
    algorithms = (Signing.RS256, Signing.RS384, Signing.RS512, Signing.PS256)
    laws.signing(kmip, KeyKind.RSA_2048, algorithms, Signing.ES256, padding.PSS.AUTO)


def test_a_connection_that_was_cut_is_made_anew(kmip: Kmip) -> None:
    pointer = kmip.put("acme", laws.OTHER, b"v")
    kmip._link._client.proxy.socket.shutdown(socket.SHUT_RDWR)
    assert kmip.get("acme", laws.OTHER, pointer) == b"v"
    assert kmip.check().startswith("KMIP 127.0.0.1")


def test_keys_are_found_by_their_label(kmip: Kmip) -> None:
    laws.found_by_label(kmip)
