"""A stranger's server decides nothing: not how long we wait, how much we read, or where we go."""

from __future__ import annotations

import gzip
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from tests import ports
from tests.collateral.conftest import NOW
from tests.collateral.endorser import Answer, Endorser, play_amd, running

from adyton.collateral import services, transport
from adyton.collateral.source import Answer as Given
from adyton.collateral.source import Request, Response
from adyton.collateral.transport import Transport, max_age, retry_after
from adyton.collateral.wanted import AmdCrl, AzureThim, IntelRootCrl, NvidiaRim
from adyton.devtee.forge import Forge
from adyton.errors import AdytonError, ConfigError, EndorsementMalformed, NotFound, TooMany, Unavailable
from adyton.tee.snp.product import Product

GENOA = AmdCrl(Product.GENOA)
PATH = "/vcek/v1/Genoa/crl"


def get(endorser: Endorser, *, seconds: float = 5.0) -> Given:
    return services.source(f"kds={endorser.url}", clock=lambda: NOW).get(GENOA, seconds=seconds)


def failure(endorser: Endorser, answer: Answer, *, seconds: float = 5.0) -> AdytonError:
    endorser.routes[PATH] = answer
    with pytest.raises(AdytonError) as caught:
        get(endorser, seconds=seconds)
    return caught.value


def test_what_it_says_is_what_comes(endorser: Endorser, forge: Forge) -> None:
    crl = forge.crl()
    endorser.routes[PATH] = Answer(crl, headers={"Cache-Control": "public, max-age=3600"})
    answer = get(endorser)
    assert (answer.body, answer.chain, answer.max_age, answer.url) == (crl, b"", 3600, endorser.url + PATH)
    endorser.routes["/there"] = Answer(crl)
    endorser.routes[PATH] = Answer(b"", 302, {"Location": "/there"})
    assert get(endorser).body == crl
    endorser.routes[PATH] = Answer(crl.hex().encode())
    assert get(endorser).body == crl


def test_statuses(endorser: Endorser) -> None:
    for status in (404, 410):
        assert isinstance(failure(endorser, Answer(b"", status)), NotFound)
    busy = failure(endorser, Answer(b"", 429, {"Retry-After": "17"}))
    assert isinstance(busy, TooMany)
    assert busy.retry_after == 17
    busy = failure(
        endorser, Answer(b"", 503, {"Retry-After": format_datetime(NOW + timedelta(seconds=40), usegmt=True)})
    )
    assert isinstance(busy, TooMany)
    assert busy.retry_after in {40, 41}
    assert isinstance(failure(endorser, Answer(b"", 429)), TooMany)
    for status in (201, 204, 206, 304, 400, 401, 403, 500, 502, 503, 504):
        assert isinstance(failure(endorser, Answer(b"", status)), Unavailable), status


def test_redirects(endorser: Endorser) -> None:
    with running() as other:
        other.routes[PATH] = Answer(b"other")
        for location in (
            other.url + PATH, "https://127.0.0.1" + PATH, "//example.invalid/", "ftp://127.0.0.1/", "http://user@127.0.0.1/",
            "http://[", "http://127.0.0.1:99999/", "file:///etc/passwd",
        ):  # fmt: skip
            error = failure(endorser, Answer(b"", 302, {"Location": location}))
            assert error.code == "endorser_redirects", location
        assert other.asked == []
    error = failure(endorser, Answer(b"", 302, {"Location": PATH}))
    assert error.code == "endorser_redirects"
    assert len(endorser.asked) < 30
    assert failure(endorser, Answer(b"", 302)).code == "endorser_status"


def test_bodies(endorser: Endorser, forge: Forge) -> None:
    error = failure(endorser, Answer(forge.crl(), behaviour="truncated"))
    assert (error.code, isinstance(error, Unavailable)) == ("endorser_unreachable", True)
    assert failure(endorser, Answer(behaviour="endless")).code == "endorser_answer_too_large"
    assert failure(endorser, Answer(forge.crl(), behaviour="drop")).code == "endorser_unreachable"
    begun = time.monotonic()
    assert failure(endorser, Answer(forge.crl(), behaviour="slow"), seconds=0.5).code == "endorser_unreachable"
    assert time.monotonic() - begun < 20
    packed = Answer(gzip.compress(forge.crl()), headers={"Content-Encoding": "gzip"})
    assert failure(endorser, packed).code == "endorser_encoding"
    wrong = failure(endorser, Answer(b"-----BEGIN CERTIFICATE-----\ncut"))
    assert isinstance(wrong, EndorsementMalformed)
    many = Answer(forge.crl(), headers={f"X-{number}": "x" for number in range(200)})
    assert failure(endorser, many).code == "endorser_unreachable"
    long = Answer(forge.crl(), headers={"X-Long": "x" * 100_000})
    assert failure(endorser, long).code == "endorser_unreachable"


def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{ports.reserve()}"
    with pytest.raises(Unavailable) as caught:
        Transport(url, clock=lambda: NOW).send(Request("/"), seconds=20)
    assert caught.value.code == "endorser_unreachable"
    assert "adyton collateral import" in (caught.value.hint or "")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            Transport(f"http://127.0.0.1:{silent.getsockname()[1]}", clock=lambda: NOW).send(Request("/"), seconds=0.3)
        assert time.monotonic() - begun < 20


def test_a_head_that_drips_has_a_deadline_too() -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    for _ in range(1000):
                        connection.sendall(b"X: y\r\n"[:1])
                        time.sleep(0.05)
                except OSError:
                    pass

        threading.Thread(target=drip, daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            Transport(f"http://127.0.0.1:{listening.getsockname()[1]}", clock=lambda: NOW).send(
                Request("/"), seconds=0.4
            )
        assert time.monotonic() - begun < 20


def test_an_untrusted_certificate_is_the_operators_business(tmp_path: object) -> None:
    import ssl
    import threading
    from pathlib import Path

    from adyton.broker.door import certificate

    made, key = certificate.make(Path(str(tmp_path)), ["localhost"], datetime.now(UTC))  # noqa: TID251 -- TLS has a clock of its own
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(2):
                plain, _ = listening.accept()
                with plain:
                    try:
                        with context.wrap_socket(plain, server_side=True) as wrapped:
                            wrapped.recv(4096)
                            wrapped.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        url = f"https://localhost:{listening.getsockname()[1]}"
        with pytest.raises(ConfigError) as caught:
            Transport(url, clock=lambda: NOW).send(Request("/"), seconds=5)
        assert caught.value.code == "endorser_certificate"
        trusting = Transport(url, clock=lambda: NOW, ca_pem=made.read_text())
        assert trusting.send(Request("/"), seconds=5).body == b"ok"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.com", "source_without_tls"), ("http://10.0.0.1/x", "source_without_tls"), ("ftp://localhost", "source_url"),
        ("https://", "source_url"), ("https://user@host", "source_url"), ("https://host/?q=1", "source_url"), ("", "source_url"),
        ("https://host:99999", "source_url"), ("https://ho st", "source_url"), ("https://h\u00f6st", "source_url"),
    ],
)  # fmt: skip
def test_addresses_that_are_not_asked(url: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        transport.base(url)
    assert caught.value.code == code


def test_kinds_of_sources() -> None:
    def made(text: str) -> services.HttpSource:
        found = services.source(text, clock=lambda: NOW)
        assert isinstance(found, services.HttpSource)
        return found

    assert made("http://127.0.0.1:8081/").name == "http://127.0.0.1:8081"
    assert made("http://127.0.0.1:8081/?".rstrip("?")).offers(IntelRootCrl())
    assert not made("pcs=https://api.trustedservices.intel.com").offers(IntelRootCrl())
    assert made("root-crl=https://certificates.trustedservices.intel.com").offers(IntelRootCrl())
    assert made("pccs=https://localhost:8081").offers(IntelRootCrl())
    assert made("thim=http://169.254.169.254").offers(AzureThim())
    assert not made("kds=https://kdsintf.amd.com").offers(NvidiaRim("x"))
    with pytest.raises(ConfigError) as caught:
        made("ias=https://localhost")
    assert caught.value.code == "source_kind"
    assert {source.name for source in services.vendors(lambda: NOW)} == set(services.VENDORS.values())
    with pytest.raises(ValueError, match="offer"):
        made("kds=http://127.0.0.1:1").get(NvidiaRim("x"), seconds=1)


def test_when_to_come_again() -> None:
    for text, expected in (
        ("5", 5), (" 7 ", 7), ("0", 1), ("999999999999", 86400), (None, None), ("soon", None), ("-1", None), ("", None), ("1.5", None),
        ("Mon, 01 Jun 2026 12:00:10 GMT", 11), ("Mon, 01 Jun 2020 12:00:10 GMT", 1), ("Mon, 99 Jun 2026 12:00:10 GMT", None),
    ):  # fmt: skip
        assert retry_after(text, NOW) == expected, text
    for text, seconds in (
        ("max-age=10", 10), ('public, Max-Age="20"', 20), ("no-store", 0), ("max-age=x", None), ("", None), ("private", None),
    ):  # fmt: skip
        assert max_age({"cache-control": text}) == seconds


def test_every_service_reads_its_own_answers(forge: Forge, endorser: Endorser) -> None:
    import base64
    import hashlib
    import json

    xml = b"<SoftwareIdentity/>"
    rim = {
        "id": "NV_X",
        "rim": base64.b64encode(xml).decode(),
        "sha256": hashlib.sha256(xml).hexdigest(),
        "rim_format": "TCG",
    }

    def taken(value: object) -> bytes:
        return services.take(NvidiaRim("NV_X"), Response(200, {}, json.dumps(value).encode(), "u"))[0]

    assert taken(rim) == xml
    for wrong in ({"id": "NV_Y"}, {"sha256": "00" * 32}, {"rim_format": "CORIM"}, {"rim": "!"}, {"rim": 5}):
        with pytest.raises(ValueError):
            taken({**rim, **wrong})
    (_, leaf), (_, middle), (_, root) = forge.certificates
    from tests.collateral.endorser import pem

    thim = {"vcekCert": pem(leaf).decode(), "certificateChain": pem(middle, root).decode(), "tcbm": "00"}
    assert services.take(AzureThim(), Response(200, {}, json.dumps(thim).encode(), "u"))[0] == pem(leaf) + pem(
        middle, root
    )
    with pytest.raises(ValueError):
        services.take(AzureThim(), Response(200, {}, b'{"vcekCert":"x"}', "u"))
    play_amd(endorser, forge)
    assert get(endorser).body == endorser.routes[PATH].body  # type: ignore[union-attr]  # an Answer
