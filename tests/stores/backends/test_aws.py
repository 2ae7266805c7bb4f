"""AWS KMS and Secrets Manager, as moto serves them. Refusals first."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from moto.server import ThreadedMotoServer
from tests import ports
from tests.stores.backends import laws
from tests.stores.backends.certificates import Authority
from tests.stores.backends.vault_server import VaultServer

from adyton.errors import AdytonError, ConfigError
from adyton.stores.backends.aws import Aws
from adyton.stores.backends.options import AwsOptions as Options
from adyton.stores.backends.port import KeyKind, Signing

REGION = "eu-central-1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = very-secret-key\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def aws(endpoint: str, credentials: str) -> Iterator[Aws]:
    holder = Aws(Options(region=REGION, endpoint_url=endpoint, credentials_file=credentials))
    yield holder
    holder.close()


def _code(call: object) -> str:
    assert callable(call)
    with pytest.raises(AdytonError) as caught:
        call()
    assert "very-secret-key" not in str(caught.value.as_dict())
    return caught.value.code


def test_options_that_cannot_be_right(credentials: str, tmp_path: Path) -> None:
    assert _code(lambda: Aws(Options(region=REGION, endpoint_url="http://kms.example"))) == "backend_plain_http"
    assert _code(lambda: Aws(Options(region=REGION, endpoint_url="ftp://127.0.0.1:1"))) == "backend_plain_http"
    assert _code(lambda: Aws(Options(region=REGION, window_days=3))) == "backend_option_invalid"
    assert _code(lambda: Aws(Options(region=REGION, ca_file=str(tmp_path / "none")))) == "backend_file_unreadable"
    Path(credentials).chmod(0o644)
    assert _code(lambda: Aws(Options(region=REGION, credentials_file=credentials))) == "backend_credential_exposed"


def test_no_credentials(endpoint: str, credentials: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    assert _code(Aws(Options(region=REGION, endpoint_url=endpoint)).check) == "backend_login_refused"
    other = Options(region=REGION, endpoint_url=endpoint, profile="nobody", credentials_file=credentials)
    assert _code(Aws(other).check) == "backend_login_refused"


def test_a_server_that_is_down_slow_or_says_nonsense(credentials: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        slow = Aws(Options(region=REGION, endpoint_url=url, credentials_file=credentials, seconds=0.2))
        assert _code(lambda: slow.get("acme", laws.ONE)) == "backend_slow"
        slow.close()
    nowhere = f"http://127.0.0.1:{ports.reserve()}"
    down = Aws(Options(region=REGION, endpoint_url=nowhere, credentials_file=credentials, seconds=20.0))
    assert _code(lambda: down.get("acme", laws.ONE)) == "backend_unreachable"
    head = (
        b"HTTP/1.1 %d X\r\nContent-Type: application/x-amz-json-1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    )
    with VaultServer() as server:  # any HTTP server does
        holder = Aws(Options(region=REGION, endpoint_url=server.url, credentials_file=credentials))
        for raw, codes in (
            (head % (200, 100) + b'{"SecretBinary": "dg=', {"backend_unreachable", "backend_answer_malformed"}),
            (head % (200, 7) + b'{"Secre', {"backend_unreachable", "backend_answer_malformed"}),
            (head % (200, 2) + b"{}", {"backend_answer_malformed"}),
            (head % (200, 21) + b'{"SecretBinary":"d!"}', {"backend_unreachable", "backend_answer_malformed"}),
            (head % (500, 0), {"backend_failed"}),
            (head % (400, 36) + b'{"__type":"UnrecognizedClientExcept"}'[:36], {"backend_refused"}),
            (head % (400, 32) + b'{"__type":"ThrottlingException"}', {"backend_failed"}),
            (head % (400, 34) + b'{"__type":"AccessDeniedException"}', {"backend_forbidden"}),
        ):
            server.before = lambda *_, answer=raw: answer
            assert _code(lambda: holder.get("acme", laws.ONE)) in codes, raw
        holder.close()


def test_tls_of_a_stranger_is_refused(tmp_path: Path, credentials: str) -> None:
    ours, strangers = Authority(tmp_path, "ours"), Authority(tmp_path, "strangers")
    with VaultServer(tls=strangers.issue("aws")) as server:
        for ca_file in ("", ours.ca):
            options = Options(region=REGION, endpoint_url=server.url, credentials_file=credentials, ca_file=ca_file)
            holder = Aws(options)
            assert _code(holder.check) == "backend_certificate_refused"
            holder.close()
        assert server.requests == []


def test_values_and_their_laws(aws: Aws) -> None:
    laws.secrets(aws)
    laws.secrets_from_threads(aws)
    assert aws.get("acme", laws.ODD[0], aws.put("acme", laws.ODD[0], b"")) == b""
    for pointer in ("x", "../" * 10 + "..", "0" * 31, "G" * 32):
        assert _code(lambda given=pointer: aws.get("acme", laws.ONE, given)) == "backend_pointer_invalid"


def test_what_others_wrote_is_read_and_left_to_them(aws: Aws, endpoint: str) -> None:
    manager = boto3.client(
        "secretsmanager", endpoint_url=endpoint, region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b"
    )
    manager.create_secret(Name="adyton/others/default/key/1", SecretString="s3cr\u00e9t")
    manager.create_secret(Name="adyton/others/not-a-path", SecretString="x")
    assert aws.get("others", laws.ONE) == "s3crét".encode() and aws.list("others") == [laws.ONE]
    aws.delete("others", laws.ONE)
    assert aws.get("others", laws.ONE) == "s3crét".encode()
    manager.close()


def test_symmetric_keys(aws: Aws) -> None:
    laws.symmetric(aws, garbage=False)  # moto says that access is denied to what is of another key
    laws.odd_requests_are_answered(aws)
    one, other = aws.generate(KeyKind.AES_256, "one"), aws.generate(KeyKind.AES_256, "other")
    assert _code(lambda: aws.decrypt(other, aws.encrypt(one, b"v"))) in {"ciphertext_refused", "backend_forbidden"}
    for handle in ("nobody", "alias/nobody", "", "\0"):
        laws.absent(aws, handle)
    handle = aws.generate(KeyKind.AES_256, "data")
    plain, sealed = aws.data_key(handle, b"a")
    assert len(plain) == 32 and aws.decrypt(handle, sealed, b"a") == plain
    assert _code(lambda: aws.decrypt(handle, b"")) == "ciphertext_refused"
    assert _code(lambda: aws.decrypt(handle, bytes(7000))) == "ciphertext_refused"


def test_signatures(aws: Aws) -> None:
    laws.signing(aws, KeyKind.P256, (Signing.ES256,), Signing.ES384)
    laws.signing(aws, KeyKind.P384, (Signing.ES384,), Signing.RS256)
    laws.signing(aws, KeyKind.P521, (Signing.ES512,), Signing.ES256)
    algorithms = (Signing.RS256, Signing.RS384, Signing.RS512, Signing.PS256, Signing.PS384, Signing.PS512)
    laws.signing(aws, KeyKind.RSA_2048, algorithms, Signing.EDDSA, padding.PSS.AUTO)  # moto's salt is not AWS's
    signer = aws.generate(KeyKind.RSA_2048, "signer")
    for call in (
        lambda: aws.encrypt(signer, b"x"),
        lambda: aws.generate(KeyKind.ED25519, "k"),
        lambda: aws.import_key(KeyKind.AES_256, "k", bytes(32)),
    ):
        assert _code(call) == "not_by_this_device"


def test_an_operators_rsa_key_that_encrypts(aws: Aws, endpoint: str) -> None:
    kms = boto3.client(
        "kms", endpoint_url=endpoint, region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b"
    )
    handle = kms.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/wrap", TargetKeyId=handle)
    assert aws.decrypt(handle, aws.encrypt("alias/wrap", bytes(32))) == bytes(32)
    assert _code(lambda: aws.sign(handle, Signing.RS256, b"m")) == "not_by_this_device"
    assert _code(lambda: aws.encrypt(handle, b"x", b"aad")) == "not_by_this_device"
    kms.close()


def test_check(aws: Aws) -> None:
    assert aws.check() == f"AWS {REGION}"
    with pytest.raises(ConfigError):
        aws.generate(KeyKind.AES_256, "a/b")
    threads = [threading.Thread(target=aws.check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_keys_are_found_by_their_label(aws: Aws) -> None:
    laws.found_by_label(aws)
