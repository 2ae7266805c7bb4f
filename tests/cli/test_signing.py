"""``adyton workload sign`` and ``--signer``: whose workloads get a secret, with a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from tests.broker import rig

from adyton.cli import adyton
from adyton.cli.output import run
from adyton.crypto import detached
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, ReleaseRefused
from adyton.protocol import workload, workload_signers
from adyton.protocol.resource import ResourcePath

KEY = ResourcePath.parse("kbs:///signed/key/1")


def kept(file: Path, key: detached.PrivateKey, password: bytes | None = None) -> Path:
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    file.chmod(0o600)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file.with_suffix(".pub").write_bytes(public)
    return file


@pytest.fixture
def document(tmp_path: Path) -> Path:
    file = tmp_path / "w.toml"
    file.write_bytes(rig.document().raw)
    return file


def sign(*arguments: object) -> int:
    return run(adyton, ["workload", "sign", *map(str, arguments)])


def test_what_cannot_sign_signs_nothing(tmp_path: Path, document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = document.read_bytes()
    key = kept(tmp_path / "k.pem", ed25519.Ed25519PrivateKey.generate())
    open_to_all = kept(tmp_path / "open.pem", ed25519.Ed25519PrivateKey.generate())
    open_to_all.chmod(0o644)
    locked = kept(tmp_path / "locked.pem", ec.generate_private_key(ec.SECP256R1()), b"open sesame")
    curve = kept(tmp_path / "curve.pem", ec.generate_private_key(ec.SECP384R1()))
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_bytes(b"\x00\xff")
    rubbish.chmod(0o600)
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"open barley")
    wrong.chmod(0o600)
    for file, *more in [
        (open_to_all,),
        (locked,),
        (locked, "--passphrase-file", wrong),
        (curve,),
        (rubbish,),
        (key.with_suffix(".pub"),),
        (tmp_path / "absent.pem",),
    ]:
        assert sign(document, "--key", file, *more) == 1, file
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "sesame" not in said.err and document.read_bytes() == before
    assert sign(document, "--key", tmp_path) == 3  # a directory is no file
    no_document = tmp_path / "no.toml"
    no_document.write_text("x = 1")
    assert sign(no_document, "--key", key) == 1 and no_document.read_text() == "x = 1"
    assert sign(document, "--key", key, "-o", tmp_path / "absent" / "w.toml") == 1
    assert sign(document, "--key", key, "-o", "-", "--json") == 3
    assert sign(document, "--key", key, "-o", "/dev/full") == 1
    assert document.read_bytes() == before and not list(tmp_path.glob(".*"))


def test_each_kind_of_key_signs(tmp_path: Path, document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tmp_path / "words"
    words.write_bytes(b"open sesame")
    words.chmod(0o600)
    keys: list[tuple[detached.PrivateKey, bytes | None]] = [
        (ed25519.Ed25519PrivateKey.generate(), None),
        (ec.generate_private_key(ec.SECP256R1()), b"open sesame"),
        (rsa.generate_private_key(65537, 2048), None),
    ]
    for number, (key, password) in enumerate(keys):
        file = kept(tmp_path / f"{number}.pem", key, password)
        more = ["--passphrase-file", words] if password else []
        assert sign(document, "--key", file, *more, "--json") == 0
    names = [detached.fingerprint(key.public_key()) for key, _ in keys]
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["signer"] for one in said] == names and said[-1]["signers"] == names
    assert said[-1]["host_data"] == str(workload.parse(document.read_bytes()).digest)
    assert run(adyton, ["workload", "show", str(document)]) == 0
    assert all(f"# signed by {name}" in capsys.readouterr().out for name in names[:1])
    assert run(adyton, ["workload", "show", "--json", str(document)]) == 0
    assert json.loads(capsys.readouterr().out)["signers"] == names


def test_a_document_that_was_changed_after_signing_is_not_shown_as_signed(
    tmp_path: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sign(document, "--key", kept(tmp_path / "k.pem", ed25519.Ed25519PrivateKey.generate())) == 0
    document.write_text(document.read_text().replace("/bin/true", "/bin/evil"))
    assert run(adyton, ["workload", "show", str(document)]) == 1
    assert "sign it again" in capsys.readouterr().err


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    return rig.make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("broker") / "data", root)
    running.publish()
    yield running
    assert running.stop() == 0


def test_only_what_the_signer_signed_gets_the_secret(
    tmp_path: Path, broker: rig.RunningBroker, root: DevelopmentRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = kept(tmp_path / "owner.pem", ed25519.Ed25519PrivateKey.generate())
    stranger = kept(tmp_path / "stranger.pem", ed25519.Ed25519PrivateKey.generate())
    (tmp_path / "secret").write_bytes(rig.SECRET)
    where = ["--broker", broker.description["url"], "--admin-token-file", str(broker.data / "admin.token")]
    public = str(owner.with_suffix(".pub"))
    bound = ["resource", "set", str(KEY.uri), "--file", str(tmp_path / "secret"), "--signer", public, *where]
    assert (
        run(adyton, ["resource", "set", KEY.uri, "--file", public, "--signer", str(tmp_path / "secret"), *where]) == 1
    )
    assert run(adyton, bound) == 0
    assert detached_name(owner) in capsys.readouterr().out

    def signed(by: Path | None, **change: str) -> workload.WorkloadDocument:
        file = tmp_path / "d.toml"
        file.write_bytes(workload.with_entries(rig.document(), change).raw)
        if by is not None:
            assert sign(file, "--key", by) == 0
        return workload.parse(file.read_bytes())

    for document in [signed(None), signed(stranger)]:
        with broker.session(rig.attester(root, document), document) as session, pytest.raises(ReleaseRefused):
            session.resource(KEY)
    right = signed(owner)
    broken = workload.with_entries(right, {"cdh.toml": "x = 1\n"})
    with broker.session(rig.attester(root, broken), broken) as session, pytest.raises(AdytonError) as caught:
        session.resource(KEY)
    assert caught.value.code == "evidence_refused"
    with broker.session(rig.attester(root, right), right) as session:
        assert session.resource(KEY) == rig.SECRET
    other = signed(owner, **{"aa.toml": "y = 2\n"})  # another document, signed by the same
    assert other.digest != right.digest and workload_signers.KEY in other.data
    with broker.session(rig.attester(root, other), other) as session:
        assert session.resource(KEY) == rig.SECRET


def detached_name(private: Path) -> str:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return detached.fingerprint(key.public_key())
