"""Keys from outside: what is refused, and that what is taken is the key that was meant."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto import issuing, key_import, key_kinds
from adyton.crypto.key_kinds import Kind
from adyton.errors import MalformedRequest
from adyton.wire import b64

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PAIRS = [kind for kind in Kind if kind.has_public]
QUICK = [kind for kind in PAIRS if not kind.rsa_bits or kind is Kind.RSA_2048]


@pytest.fixture(scope="module")
def pairs() -> dict[Kind, bytes]:
    return {kind: key_kinds.generate(kind) for kind in QUICK}


def private_jwk(kind: Kind, secret: bytes) -> dict[str, str]:
    public = key_kinds.public_jwk(kind, key_kinds.public_der(kind, secret))
    key = key_kinds.load(secret)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        named = {
            "d": numbers.d,
            "p": numbers.p,
            "q": numbers.q,
            "dp": numbers.dmp1,
            "dq": numbers.dmq1,
            "qi": numbers.iqmp,
        }
        return {**public, **{name: b64.encode_url(n.to_bytes((n.bit_length() + 7) // 8)) for name, n in named.items()}}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = len(b64.decode_url(public["x"]))
        return {**public, "d": b64.encode_url(key.private_numbers().private_value.to_bytes(size))}
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return {**public, "d": b64.encode_url(raw)}


def refused(kind: Kind, form: key_import.Format, data: bytes) -> None:
    with pytest.raises(MalformedRequest) as error:
        key_import.read(kind, form, data)
    assert error.value.code == "key_malformed"


def test_what_is_no_whole_key_is_refused(pairs: dict[Kind, bytes]) -> None:
    key = key_kinds.load(pairs[Kind.P256])
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for data in (b"", public, locked, pem[:-40], pem.replace(b"PRIVATE", b"SECRET"), b"\0" * 200):
        refused(Kind.P256, "pem", data)
        refused(Kind.P256, "der", data)
    refused(Kind.P256, "pem", b"x" * (key_import.MAX_IMPORT + 1))
    refused(Kind.CONFIGURATION, "raw", b"{}")


def test_another_kind_size_or_curve_is_refused(pairs: dict[Kind, bytes]) -> None:
    for kind, secret in pairs.items():
        for another in set(QUICK) - {kind}:
            refused(another, "der", secret)
    small = rsa.generate_private_key(65537, 1024).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    cubed = rsa.generate_private_key(3, 2048).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    koblitz = ec.generate_private_key(ec.SECP256K1())
    refused(Kind.RSA_2048, "der", small)
    refused(Kind.RSA_2048, "der", cubed)
    refused(Kind.P256, "der", koblitz.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    other = dsa.generate_private_key(2048).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    for kind in QUICK:
        refused(kind, "der", other)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.size])
def test_symmetric_keys_have_exactly_their_size(kind: Kind) -> None:
    for size in {0, 1, 15, 16, 24, 32, 33, 64, 65} - {kind.size}:
        refused(kind, "raw", bytes(size))
        refused(kind, "jwk", json.dumps({"kty": "oct", "k": b64.encode_url(bytes(size))}).encode())
    key = key_kinds.generate(kind)
    assert len(key) == kind.size
    assert key_import.read(kind, "raw", key) == (key, ())
    assert key_import.read(kind, "jwk", json.dumps({"kty": "oct", "k": b64.encode_url(key)}).encode())[0] == key
    refused(kind, "pem", key)


@pytest.mark.parametrize("kind", QUICK)
def test_jwk(kind: Kind, pairs: dict[Kind, bytes]) -> None:
    members = private_jwk(kind, pairs[kind])
    for name in members:
        less = {one: value for one, value in members.items() if one != name}
        refused(kind, "jwk", json.dumps(less).encode())
        refused(kind, "jwk", json.dumps({**members, name: 7}).encode())
    for name in set(members) - {"kty", "crv", "e"}:
        value = members[name]
        changed = ("A" if value[5] != "A" else "B").join((value[:5], value[6:]))
        refused(kind, "jwk", json.dumps({**members, name: changed}).encode())
    refused(kind, "jwk", b"[]")
    refused(kind, "jwk", b'{"kty":"oct","kty":"oct"}')
    read, _ = key_import.read(kind, "jwk", json.dumps(members).encode())
    assert key_kinds.public_der(kind, read) == key_kinds.public_der(kind, pairs[kind])
    for other in set(QUICK) - {kind}:
        refused(other, "jwk", json.dumps(members).encode())


@pytest.mark.parametrize("kind", QUICK)
def test_pem_and_der_give_the_same_key(kind: Kind, pairs: dict[Kind, bytes]) -> None:
    secret = pairs[kind]
    assert key_import.read(kind, "der", secret)[0] == secret
    assert key_import.read(kind, "pem", key_kinds.released(kind, secret))[0] == secret
    assert key_kinds.public_pem(key_kinds.public_der(kind, secret)).startswith("-----BEGIN PUBLIC KEY")


def test_a_chain_comes_with_its_key_only(pairs: dict[Kind, bytes]) -> None:
    root_key, root = issuing.make_root("a root", NOW)
    secret = pairs[Kind.P256]
    public = key_kinds.public_der(Kind.P256, secret)
    leaf = issuing.issue(root_key, root, Kind.P256, public, "leaf", ["leaf.example"], 5, NOW)
    whole = key_kinds.released(Kind.P256, secret, (leaf, root))
    assert key_import.read(Kind.P256, "pem", whole) == (secret, (leaf, root))
    refused(Kind.P256, "pem", key_kinds.released(Kind.P256, secret, (root, leaf)))
    refused(Kind.P256, "pem", key_kinds.released(Kind.P256, key_kinds.generate(Kind.P256), (leaf, root)))
    _, foreign = issuing.make_root("a root", NOW)
    refused(Kind.P256, "pem", key_kinds.released(Kind.P256, secret, (leaf, foreign)))
    refused(Kind.P256, "pem", key_kinds.released(Kind.P256, secret) + b"-----BEGIN CERTIFICATE-----\nAA==\n")


@given(st.binary(max_size=300), st.sampled_from(["pem", "der", "jwk", "raw"]), st.sampled_from(QUICK))
def test_any_bytes_are_a_key_or_refused(data: bytes, form: key_import.Format, kind: Kind) -> None:
    try:
        secret, chain = key_import.read(kind, form, data)
    except MalformedRequest as error:
        assert error.code == "key_malformed"
    else:
        assert key_kinds.public_der(kind, secret)
        assert chain == ()


def test_what_cannot_be_generated() -> None:
    for kind, size in (
        (Kind.RANDOM, 0),
        (Kind.RANDOM, key_kinds.MAX_RANDOM + 1),
        (Kind.RANDOM, -1),
        (Kind.AES_256, 16),
        (Kind.P256, 32),
        (Kind.CONFIGURATION, 0),
        (Kind.OPAQUE, 0),
    ):
        with pytest.raises(MalformedRequest):
            key_kinds.generate(kind, size)
    assert len(key_kinds.generate(Kind.RANDOM, 1000)) == 1000
    assert key_kinds.generate(Kind.RANDOM, 40) != key_kinds.generate(Kind.RANDOM, 40)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Kind.RSA_3072, Kind.RSA_4096])
def test_large_rsa(kind: Kind) -> None:
    secret = key_kinds.generate(kind)
    key = key_kinds.load(secret)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == kind.rsa_bits
    assert key_import.read(kind, "der", secret)[0] == secret


class TestCertificates:
    ROOT = issuing.make_root("the tenant", NOW)
    PUBLIC = key_kinds.public_der(Kind.ED25519, key_kinds.generate(Kind.ED25519))

    @pytest.mark.parametrize(
        ("subject", "names", "days", "kind"),
        [
            ("", ["a.example"], 5, Kind.ED25519),
            ("x" * 65, ["a.example"], 5, Kind.ED25519),
            ("a\0b", ["a.example"], 5, Kind.ED25519),
            ("a", [], 5, Kind.ED25519),
            ("a", ["a.example"] * 101, 5, Kind.ED25519),
            ("a", ["a b.example"], 5, Kind.ED25519),
            ("a", ["*.*.example"], 5, Kind.ED25519),
            ("a", ["-a.example"], 5, Kind.ED25519),
            ("a", ["javascript:alert"], 5, Kind.ED25519),
            ("a", ["a.example\n"], 5, Kind.ED25519),
            ("a", ["a.example"], 0, Kind.ED25519),
            ("a", ["a.example"], -1, Kind.ED25519),
            ("a", ["a.example"], 3651, Kind.ED25519),
            ("a", ["a.example"], 5, Kind.X25519),
            ("a", ["a.example"], 5, Kind.AES_256),
        ],
    )
    def test_what_is_not_issued(self, subject: str, names: list[str], days: int, kind: Kind) -> None:
        with pytest.raises(MalformedRequest) as error:
            issuing.issue(*self.ROOT, kind, self.PUBLIC, subject, names, days, NOW)
        assert error.value.code == "certificate_request"

    def test_a_leaf_never_outlives_its_root(self) -> None:
        late = NOW + timedelta(days=3600)
        with pytest.raises(MalformedRequest):
            issuing.issue(*self.ROOT, Kind.ED25519, self.PUBLIC, "a", ["a.example"], 60, late)
        leaf = issuing.issue(*self.ROOT, Kind.ED25519, self.PUBLIC, "a", ["a.example"], 49, late)
        assert issuing.validity(leaf)[1] <= issuing.validity(self.ROOT[1])[1]

    def test_what_a_leaf_says(self) -> None:
        from cryptography import x509

        names = ["a.example", "*.b.example", "192.0.2.7", "2001:db8::1", "spiffe://here/there"]
        leaf = x509.load_der_x509_certificate(issuing.issue(*self.ROOT, Kind.ED25519, self.PUBLIC, "a", names, 5, NOW))
        leaf.verify_directly_issued_by(x509.load_der_x509_certificate(self.ROOT[1]))
        assert isinstance(leaf.public_key(), ed25519.Ed25519PublicKey)
        listed = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(one.value) for one in listed] == names
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def _pkcs1(p: int, q: int, e: int = 65537) -> bytes:
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = (0, p * q, e, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    return _der(0x30, b"".join([_der(2, n.to_bytes(n.bit_length() // 8 + 1)) for n in numbers]))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([tag]) + (size if len(content) < 128 else bytes([0x80 | len(size)]) + size) + content


@pytest.mark.parametrize(("p", "q"), [(4423, 4253), (3217, 4253), (11213, 9689)])
def test_numbers_that_would_take_minutes_to_check_are_refused_at_once(p: int, q: int) -> None:
    """To see whether a large number is prime holds up the whole worker."""
    first, second = 2**p - 1, 2**q - 1  # Mersenne's
    der = _pkcs1(first, second)
    pem = b"-----BEGIN RSA PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END RSA PRIVATE KEY-----\n"
    d = pow(65537, -1, (first - 1) * (second - 1))
    numbers = {"n": first * second, "e": 65537, "d": d, "p": first, "q": second, "dp": 3, "dq": 3, "qi": 3}
    jwk = {name: b64.encode_url(n.to_bytes((n.bit_length() + 7) // 8)) for name, n in numbers.items()}
    forms: tuple[tuple[key_import.Format, bytes], ...] = (
        ("der", der),
        ("pem", pem),
        ("jwk", json.dumps({"kty": "RSA", **jwk}).encode()),
    )
    for form, data in forms:
        began = time.process_time()
        for kind in (Kind.RSA_2048, Kind.RSA_4096, Kind.P256):
            refused(kind, form, data)
        assert time.process_time() - began < 5


@pytest.mark.parametrize("bits", [8192, 16384, 32768])
def test_parameters_of_other_kinds_are_not_computed_with(bits: int) -> None:
    """Reading a private key of DSA or DH makes its public half."""
    p, q, x = (1 << bits) - 1, (1 << bits - 8) - 1, (1 << bits - 9) - 5
    for oid, parameters in (("2a8648ce380401", (p, q, 3)), ("2a864886f70d010301", (p, 3))):
        written = [_der(2, n.to_bytes(n.bit_length() // 8 + 1)) for n in (*parameters, x)]
        algorithm = _der(0x30, _der(6, bytes.fromhex(oid)) + _der(0x30, b"".join(written[:-1])))
        data = _der(0x30, b"\x02\x01\x00" + algorithm + _der(4, written[-1]))
        began = time.process_time()
        refused(Kind.RSA_2048, "der", data)
        assert time.process_time() - began < 10


def test_one_key_at_a_time(pairs: dict[Kind, bytes]) -> None:
    one, other = (key_kinds.released(kind, pairs[kind]) for kind in (Kind.ED25519, Kind.P256))
    refused(Kind.ED25519, "pem", one + one)
    refused(Kind.ED25519, "pem", one + other)
    assert key_import.read(Kind.ED25519, "pem", b"comment\n" + one)[0] == pairs[Kind.ED25519]
