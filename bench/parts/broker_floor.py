"""The floor of ``bench/broker.py``: what a handshake cannot do without, each by its library alone.

Only what no code of ours could leave out counts. The cryptography of the attestation:

* P-384 verification of the report, ES256 signature of the token, encryption to the TEE's key.

And, as the protocol and ``docs/`` promise them, for auth, attest and get together:

* sealing two cookies and opening two (AES-256-GCM), with base64 around them; a random nonce; opening the resource;
* loading the TEE's public point (it comes anew with each attestation, and must be on the curve);
* SHA-384 of what the evidence binds, SHA-256 of the init data and of the claims;
* decoding the body's JSON and the report's, without the certificates that came before; encoding the token's claims, and
  base64 of them;
* reading the tenant's generation for the appraisal, and again with the resource for the release (SQLite);
* two audit rows: SHA-256 of each, then one transaction of as many rows as the broker's own commits had, through a bare
  connection with the broker's pragmas, on the same disk.

Not counted, though somebody must do it: everything that is decided, compared, composed or looked up in Python; the
compression of claims; HTTP, the log and the event loop. Where many small calls belong together they are timed as one,
because reading the clock would cost as much as they do.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.broker.door.answer import Answer
from adyton.crypto import jwe, jwk, jwt
from adyton.protocol import rcar
from adyton.rats.types import Nonce
from adyton.stores import schema
from adyton.tee.snp import json_form

CRYPTOGRAPHY = ("P-384 verification", "ES256 signature", "encryption to the TEE's key")
SECRET = bytes(1024)  # as large as the resource of the handshakes
ROW = bytes(700)
CHALLENGED = bytes(100)


class Floor:
    """The primitives of one handshake, and answers of the handshake's size around them.

    ``learn`` takes the sizes from a real handshake; ``group`` is how many audit rows share a commit.
    """

    def __init__(self, directory: Path) -> None:
        vcek, tee = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
        report, sha384 = bytes(672), ec.ECDSA(hashes.SHA384())
        signature, public = vcek.sign(report, sha384), vcek.public_key()
        signer, es256 = jwt.Signer.generate(), ec.ECDSA(hashes.SHA256())
        tee_key, signed = jwk.from_public(tee.public_key()), bytes(3600)
        self._tee_key = tee_key
        self._signer = signer
        self._seal = AESGCM(bytes(32))
        self._store = directory / "floor.sqlite"
        self._database = _database(self._store)
        self._sequence = 0
        self._waiting = 0
        self.group = 1
        self.parts: dict[str, Callable[[], object]] = {
            "P-384 verification": lambda: public.verify(signature, report, sha384),
            "ES256 signature": lambda: signer.private.sign(signed, es256),
            "encryption to the TEE's key": lambda: jwe.encrypt(tee_key, SECRET),
            "auth: nonce, cookie": self._auth,
            "attest: cookies, digests, JSON, point": self._attest,
            "resource: cookie, value": self._resource,
        }
        self.steps: dict[bytes, tuple[tuple[str, ...], Answer]] = {}

    def learn(self, body: bytes, answer: Answer) -> None:
        """Take the sizes of a real attestation."""
        self.learnt = True
        short, _, _ = rcar._CHAINS.cut(body)
        evidence = bytes(rcar._ATTESTATION.decode(short).tee_evidence.primary_evidence)
        split = json_form.split_compact(evidence)
        assert split is not None
        self._body, self._report = short, split[0]
        read = rcar._ATTESTATION.decode(short)
        self._init_data = read.init_data.body.encode() if read.init_data is not None else b""
        token = json.loads(answer.body)["token"]
        payload = token.split(".")[1]
        self._claims = msgspec.json.decode(binascii.a2b_base64(payload.translate({45: 43, 95: 47}) + "=="))
        cookie = answer.cookie.partition(b"=")[2].partition(b";")[0]
        self._attested = bytes(len(cookie) * 3 // 4 - 32)
        nonce = bytes(12)
        self._cookies = [binascii.b2a_base64(self._seal.encrypt(nonce, text, b"x"), newline=False) for text in (CHALLENGED, self._attested)]  # fmt: skip
        self._value = self._seal.encrypt(nonce, SECRET + bytes(100), b"x")
        x, y = (self._tee_key.members[name] for name in ("x", "y"))
        self._point = b"\4" + b"".join(binascii.a2b_base64(part.translate({45: 43, 95: 47}) + "=") for part in (x, y))
        token_answer = rcar.token_body(self._signer.sign(msgspec.json.encode(self._claims)))
        self.steps = {
            b"auth": (("auth: nonce, cookie",), Answer(200, rcar.challenge(Nonce(bytes(32)), "sha256"), cookie=answer.cookie)),
            b"attest": (
                ("P-384 verification", "attest: cookies, digests, JSON, point", "ES256 signature"),
                Answer(200, token_answer, cookie=answer.cookie),
            ),
            b"resource": (
                ("resource: cookie, value", "encryption to the TEE's key"),
                Answer(200, jwe.encrypt(self._tee_key, SECRET)),
            ),
        }  # fmt: skip

    learnt = False

    def step(self, name: bytes, spent: Any) -> Answer:
        """Do what one request of a handshake needs, and no more."""
        parts, answer = self.steps[name]
        for part in parts:
            since = time.thread_time()
            self.parts[part]()
            spent.add(part, since)
        if name != b"auth":
            self._waiting += 1
            if self._waiting >= self.group:
                rows, self._waiting = self._waiting, 0
                since = time.thread_time()
                self._rows(rows)
                spent.add("two audit rows", since)
        return answer

    def alone(self, count: int = 200) -> float:
        """µs of CPU for the cryptography of the attestation, in a tight loop."""
        since = time.thread_time()
        for _ in range(count):
            for part in CRYPTOGRAPHY:
                self.parts[part]()
        return (time.thread_time() - since) / count * 1e6

    def _sealed(self, plaintext: bytes) -> None:
        binascii.b2a_base64(self._seal.encrypt(AESGCM.generate_key(128)[:12], plaintext, b"context"), newline=False)

    def _opened(self, cookie: bytes) -> None:
        self._seal.decrypt(bytes(12), binascii.a2b_base64(cookie), b"x")

    def _auth(self) -> None:
        binascii.b2a_base64(AESGCM.generate_key(256), newline=False)
        self._sealed(CHALLENGED)

    def _attest(self) -> None:
        self._opened(self._cookies[0])
        rcar._ATTESTATION.decode(self._body)
        json_form._REPORT.decode(self._report)
        ec.EllipticCurvePublicKey.from_encoded_point(jwk.CURVES["P-256"][0], self._point)
        hashlib.sha384(bytes(330)).digest()
        hashlib.sha256(self._init_data).digest()
        self._database.execute("SELECT generation FROM tenants WHERE name=?", ("default",)).fetchall()
        claims = msgspec.json.encode(self._claims)
        hashlib.sha256(claims).digest()
        binascii.b2a_base64(claims, newline=False)
        self._sealed(self._attested)

    def _resource(self) -> None:
        self._opened(self._cookies[1])
        self._database.execute(
            "SELECT t.generation, r.version, r.updated, r.sealed FROM tenants t"
            " LEFT JOIN resources r ON r.tenant = t.name AND r.path = ? WHERE t.name = ?",
            ("default/key/1", "default"),
        ).fetchall()
        self._seal.decrypt(bytes(12), self._value, b"x")

    def _rows(self, count: int) -> None:
        execute, first = self._database.execute, self._sequence + 1
        execute("BEGIN IMMEDIATE")
        execute(
            "SELECT sequence, leaf FROM audit WHERE tenant=? ORDER BY sequence DESC LIMIT 1", ("default",)
        ).fetchone()
        self._sequence += count
        rows = [("default", number, 1.5, hashlib.sha256(ROW).digest(), ROW) for number in range(first, first + count)]
        self._database.executemany("INSERT INTO audit VALUES (?,?,?,?,?)", rows)
        execute("COMMIT")


def _database(path: Path) -> sqlite3.Connection:
    """A file with the broker's tables and pragmas, and one resource."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    for statement in schema.STATEMENTS:
        connection.execute(statement)
    connection.execute("INSERT INTO tenants VALUES ('default', 1, 1, 1)")
    connection.execute("INSERT INTO resources VALUES ('default', 'default/key/1', 1, 1.5, 1024, ?)", (bytes(1150),))
    return connection
