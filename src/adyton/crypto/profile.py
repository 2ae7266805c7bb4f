"""Which cryptography a broker uses: the usual, or what the FIPS standards approve. The one place that decides it.

``FIPS`` takes away what no FIPS publication or NIST SP approves: ChaCha20-Poly1305 and X25519 (TLS; keys), SM2 and SM3
(evidence of Hygon CSV), RSA1_5 as key transport (SP 800-131A), Argon2id (passphrases; SP 800-132 knows PBKDF2 alone).
What stays is approved: AES-GCM, AES-KW, HMAC, SHA-2, ECDSA and ECDH on P-256, P-384 and P-521, RSA from 2048 bits,
Ed25519 (FIPS 186-5), ML-KEM (FIPS 203). Whether the modules that compute it are validated is another question
(``broker.fips``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adyton.crypto.key_kinds import Kind
from adyton.errors import ConfigError, MalformedRequest, UnsupportedEvidence

SPEC = "docs/broker/fips.md"
ARGON2ID, PBKDF2 = "argon2id", "pbkdf2-hmac-sha256"


@dataclass(frozen=True, slots=True)
class Profile:
    """``suites``: OpenSSL's list for TLS 1.2; ``group``: the only one, or all that OpenSSL has.

    ``ciphers``: by OpenSSL's name, what a connection of any version may have come to use; ``None``: whatever is offered.
    """

    name: str
    suites: str
    group: str | None
    ciphers: frozenset[str] | None
    tees: frozenset[str]
    kinds: frozenset[Kind]
    kdfs: frozenset[str]
    rsa1_5: bool

    def check_tee(self, tee: str) -> None:
        """``UnsupportedEvidence`` ``fips_evidence`` for evidence that is signed or hashed as nothing approves."""
        if tee in self.tees:
            raise UnsupportedEvidence(
                "evidence of this TEE is signed with SM2 over SM3, which no FIPS publication approves",
                code="fips_evidence",
                tee=tee,
                field="tee",
                spec=SPEC,
                hint="a broker without --fips takes it",
            )

    def check_kind(self, kind: Kind) -> None:
        """``MalformedRequest`` ``fips_key_kind`` for a key of no approved algorithm."""
        if kind in self.kinds:
            raise MalformedRequest(
                f"{kind.value} is approved by no FIPS publication, and this broker runs with --fips",
                code="fips_key_kind",
                field="kind",
                expected="p-256, p-384 or p-521",
                got=kind.value,
                spec=SPEC,
            )

    def check_kdf(self, kdf: object) -> None:
        """``ConfigError`` ``fips_custody`` for a passphrase that is stretched otherwise than by PBKDF2."""
        if kdf not in self.kdfs:
            raise ConfigError(
                "this passphrase slot is derived by Argon2id, which no FIPS publication approves",
                code="fips_custody",
                field="kdf",
                expected=sorted(self.kdfs),
                got=str(kdf)[:40],
                spec=SPEC,
                hint="adyton broker root-key change --custody passphrase --kdf pbkdf2, without --fips; then start with it",
            )

    def check_rsa1_5(self, *, wanted: bool) -> None:
        """``ConfigError`` ``fips_rsa1_5`` where guests of protocol 0.1 are to be served."""
        if wanted and not self.rsa1_5:
            raise ConfigError(
                "RSA1_5 is no approved key transport: --allow-rsa1-5 and --fips contradict each other",
                code="fips_rsa1_5",
                field="allow-rsa1-5",
                spec=SPEC,
            )


USUAL: Final = Profile(
    name="usual",
    suites="ECDHE+AESGCM:ECDHE+CHACHA20",
    group=None,
    ciphers=None,
    tees=frozenset(),
    kinds=frozenset(),
    kdfs=frozenset({ARGON2ID, PBKDF2}),
    rsa1_5=True,
)
FIPS: Final = Profile(
    name="fips",
    suites="ECDHE+AESGCM",
    group="prime256v1",  # Python 3.11 can name one group; every FIPS client has this one
    ciphers=frozenset(
        {
            *("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"),
            *(f"ECDHE-{key}-AES{size}" for key in ("ECDSA", "RSA") for size in ("128-GCM-SHA256", "256-GCM-SHA384")),
        }
    ),
    tees=frozenset({"csv", "hygondcu"}),
    kinds=frozenset({Kind.X25519}),
    kdfs=frozenset({PBKDF2}),
    rsa1_5=False,
)


def of(*, fips: bool) -> Profile:
    """The profile that a setting means."""
    return FIPS if fips else USUAL
