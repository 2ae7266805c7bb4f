"""The session cookie: all that a handshake needs to remember, sealed, so that any worker serves any request.

After ``/auth`` it holds the challenge, after ``/attest`` the TEE's key and what was found out about it. It is sealed
(AES-256-GCM) with the tenant as context: a cookie of another tenant, of another broker, or with a changed bit does not
open. It is never a bearer secret: whoever steals one gets answers encrypted to the TEE's key.

``kbs-session-id=<base64url>; Expires=…`` has no ``Path``: clients then use the path of the request up to its last
slash, ``/kbs/v0`` below whatever base URL they know the broker by (kbs-protocol 1.3). At most ``MAX_COOKIE``
characters: claims are compressed, and kept in the store by digest if that is not enough.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import TypeAlias

import msgspec

from adyton.crypto.aead import OVERHEAD, KeyRing
from adyton.errors import SessionInvalid
from adyton.protocol import ear_form
from adyton.wire import b64

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NAME = b"kbs-session-id"
MAX_COOKIE = 3000
_PLAIN = NAME + b"="
MAX_CLAIMS = 256 * 1024
# What most claims have in common, for the compressor: names in their order, usual values. Another text is another
# format of cookies, so a change of it is a change of ``Attested``'s tag.
_USUAL = zstd.ZstdDict(
    b'{"alg":"RSA-OAEP-256","e":"AQAB","kty":"RSA","n":""},"root":"vendor","unchecked":["chip_id"]'
    b'{"eat_profile":"tag:github.com,2024:confidential-containers/Trustee","iat":17,"exp":17,"iss":"Adyton",'
    b'"ear.verifier-id":{"developer":"Adyton","build":"adyton 0.1.0"},"submods":{"cpu0":{"ear.status":"affirming",'
    b'"contraindicated""warning","ear.trustworthiness-vector":{"instance-identity":0,"configuration":3,"executables":3,'
    b'"file-system":0,"hardware":32,"runtime-opaque":0,"storage-opaque":0,"sourced-data":0},'
    b'"ear.appraisal-policy-id":"default","ear.veraison.annotated-evidence":{"report_data":"",'
    b'00000000000000000000000000000000","runtime_data_claims":{"additional-evidence":"","nonce":"=","tee-pubkey":'
    b'{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"","y":""}},"snp":{"measurement":"","report_data":"",'
    b'"init_data":"","chip_id":"","reported_tcb_bootloader":10,"reported_tcb_tee":0,"reported_tcb_snp":25,'
    b'"reported_tcb_microcode":84,"policy_abi_major":0,"policy_abi_minor":0,"policy_smt_allowed":true,'
    b'"policy_migrate_ma":false,"policy_debug_allowed":false,"policy_single_socket":false,"platform_smt_enabled":true,'
    b'"platform_tsme_enabled":false},"adyton":{"tee":"snp","root":"custom","root_fingerprint":"","measurement":"",'
    b'"host_data":"","unchecked":[],"policy_digest":"","reference_generation":1},"init_data":"",'
    b'"init_data_claims":{"workload":{"image":"sha256:","command":["/bin/sh"],"cwd":"/","user":"0:0",'
    b'"env":{"PATH":"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},"mounts":[],"ports":[],'
    b'"network":"none","broker":null,"terminal":false,"debug":false,"logs":false}}},'
    b'"ear.trustee.identifiers":{"validated":{}}}},"adyton":{"tenant":"default","generation":1}}',
    is_raw=True,
)
# Used over and over: making one costs more than 3 kB of claims. The level is for speed; the usual text is what helps.
_COMPRESSOR = zstd.ZstdCompressor(level=-3, zstd_dict=_USUAL.as_digested_dict)
_CONTEXT = b"adyton session 1\0"


class Challenged(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """After ``/auth``: the nonce's text as it was sent, the hash that binds it, when it ends (Unix seconds), and what protocol is spoken."""

    expires: int
    tee: str
    nonce: str
    algorithm: str
    version: str = "0.4.0"


class Attested(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """After ``/attest``. ``claims`` is the token's payload, compressed; empty when the store has it under ``digest``.

    With ``own`` it is the text of a form (``ear_form``), which many sessions share, and ``own`` what fills its gaps.

    ``generation`` is the tenant's when the evidence was appraised: a change of policies or reference values since then
    ends the session.
    """

    expires: int
    tee: str
    key: dict[str, str]
    generation: int
    digest: bytes
    claims: bytes
    version: str = "0.4.0"
    own: tuple[bytes, ...] = ()


Session: TypeAlias = Challenged | Attested

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Session] = msgspec.msgpack.Decoder(Session)


def seal(ring: KeyRing, tenant: str, session: Session) -> bytes:
    """The cookie's value."""
    return b64.encode_url(ring.seal(_ENCODER.encode(session), _CONTEXT + tenant.encode())).encode("ascii")


def open_(ring: KeyRing, tenant: str, value: bytes, now: float) -> Session:
    """The session in a cookie's value; ``SessionInvalid`` for one that is forged, foreign or expired at ``now``."""
    try:
        if len(value) > MAX_COOKIE:
            raise ValueError
        opened = ring.open(b64.decode_url(value.decode("ascii")), _CONTEXT + tenant.encode())
    except ValueError as error:
        raise SessionInvalid("the session cookie is not one of this broker's", code="seal_broken") from error
    try:
        session = _DECODER.decode(opened)
    except msgspec.DecodeError as error:  # sealed by another version of Adyton
        raise SessionInvalid("the session cookie is of another version", code="session_version") from error
    if session.expires <= now:
        raise SessionInvalid("the session has expired", code="session_expired", hint="attest again")
    return session


def attested(  # noqa: PLR0917 -- one value each
    ring: KeyRing,
    tenant: str,
    expires: int,
    tee: str,
    key: Mapping[str, str],
    generation: int,
    claims: bytes,
    version: str = "0.4.0",
    kept: bytes | None = None,
    own: tuple[bytes, ...] = (),
) -> tuple[bytes, bytes, bool]:
    """The cookie's value after ``/attest``, the digest of ``claims``, and whether the store must keep them for it.

    ``kept``: ``compressed`` of the claims, or of the text of the form that ``own`` fills.
    """
    digest, members = hashlib.sha256(claims).digest(), dict(key)
    kept = compressed(claims) if kept is None else kept
    if len(claims) <= MAX_CLAIMS and (len(kept) + sum(map(len, own)) + OVERHEAD) * 4 // 3 <= MAX_COOKIE:
        value = seal(ring, tenant, Attested(expires, tee, members, generation, digest, kept, version, own))
        if len(value) <= MAX_COOKIE:
            return value, digest, False
    value = seal(ring, tenant, Attested(expires, tee, members, generation, digest, b"", version))
    if len(value) > MAX_COOKIE:
        raise ValueError("a TEE's key alone does not fill a cookie")
    return value, digest, True


def compressed(claims: bytes) -> bytes:
    """Claims, or the text of their form, as a cookie holds them."""
    return _COMPRESSOR.compress(claims, zstd.ZstdCompressor.FLUSH_FRAME)


def claims(session: Attested, shelved: bytes | None) -> bytes:
    """The token's payload, from the cookie, or from what the store had under its digest (and checked against it)."""
    if not session.claims:
        if shelved is None:
            raise SessionInvalid("the session's claims are no longer kept", code="session_expired", hint="attest again")
        return shelved
    text = zstd.ZstdDecompressor(_USUAL).decompress(session.claims, MAX_CLAIMS)
    return ear_form.written(text, session.own) if session.own else text


def value_of(header: bytes) -> bytes | None:
    """The session's value in a ``Cookie`` header, or ``None``. Of several, the first."""
    if header.startswith(_PLAIN) and b";" not in header:
        return header[len(_PLAIN) :].rstrip().strip(b'"')
    for pair in header.split(b";"):
        name, equals, value = pair.strip().partition(b"=")
        if equals and name == NAME:
            return value.strip(b'"')
    return None


def set_cookie(value: bytes, expires: int, *, secure: bool) -> bytes:
    """The ``Set-Cookie`` header's value. ``Secure`` only over TLS: a client on loopback would not send it back."""
    return b"%b=%b; Expires=%b; HttpOnly%b" % (NAME, value, _date(expires), b"; Secure" if secure else b"")


@lru_cache(maxsize=64)  # many sessions begin in one second
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode("ascii")
