"""The checks of evidence 6 and 7 over one piece of TPM evidence, one method each. ``verify`` runs them in order.

Each is silent or raises an error with a code of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from hmac import compare_digest

from adyton.crypto import path
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch, EvidenceError, FreshnessFailed, UnsupportedEvidence
from adyton.rats.binding import check_report_data
from adyton.rats.types import ReportData, Revocation, RootKind, TrustAnchors
from adyton.tee.eventlog import facts, ima, replay
from adyton.tee.eventlog.banks import SHA256, Bank
from adyton.tee.eventlog.facts import Facts
from adyton.tee.eventlog.log import EventLog
from adyton.tee.remembered import Chain, Remembered, Window
from adyton.tee.tpm import ak as keys
from adyton.tee.tpm import forms
from adyton.tee.tpm.abi import SPEC, TEE, Attest, Signature
from adyton.tee.tpm.ak import FOREVER, Ak, AkTrust, VerifiedAk
from adyton.tee.tpm.quote import Quote, check_signature, quoted_pcrs

INIT_DATA_PCR = 8
FIRMWARE_PCRS = frozenset(range(8))  # what firmware writes, a firmware's log must explain
_EVERY_PCR = {SHA256: frozenset(range(24))}


class Verification:
    """One verification: what was given, and what the checks have found so far."""

    __slots__ = (
        "_key", "_path", "anchors", "attests", "endorsements", "evidence", "facts", "ima_banks", "ima_entries", "init_data", "known",
        "log", "log_banks", "now", "pcrs", "quotes", "remembered", "report_data", "revocation", "signatures", "this", "trust",
    )  # fmt: skip
    this: Ak
    trust: AkTrust
    log: EventLog | None
    facts: Facts | None
    pcrs: dict[Bank, dict[int, bytes]]
    quotes: list[Quote]

    def __init__(
        self,
        evidence: bytes,
        *,
        endorsements: EndorsementSet,
        now: datetime,
        anchors: TrustAnchors,
        revocation: Revocation,
        report_data: ReportData | None,
        init_data: bytes | None,
        remembered: Remembered | None,
    ) -> None:
        self.endorsements = endorsements
        self.now = now
        self.anchors = anchors
        self.revocation = revocation
        self.report_data = report_data
        self.init_data = init_data
        self.remembered = remembered
        self.log = None
        self.log_banks: tuple[str, ...] = ()
        self.ima_banks: tuple[str, ...] = ()
        self.ima_entries = 0
        self.facts = None
        self._path: path.Path | None = None
        self.evidence = parsed = forms.parse(evidence)
        self.attests = [Attest.parse(message) for message, _ in parsed.quotes]
        self.signatures = [Signature.parse(signature) for _, signature in parsed.quotes]
        self.known: VerifiedAk | None = None
        self._key: tuple[object, ...] = ()
        if remembered is not None:
            self._key = (
                TEE,
                parsed.ak_public,
                parsed.ak_certificate,
                endorsements.digest,
                anchors.vendor,
                anchors.custom,
                revocation is Revocation.REQUIRED,
            )
            known = remembered.recall(self._key, now)
            if isinstance(known, VerifiedAk):
                self.known, self.this, self.trust = known, known.ak, known.trust

    # The checks, in order. Each is silent or raises.

    def which_key(self) -> None:
        """The key that the evidence names, the certificate that goes with it, and who answers for it."""
        if self.known is not None:
            return
        self.this = keys.read(self.evidence.ak_public, self.evidence.ak_certificate, self.endorsements)
        if keys.pinned(self.this, self.anchors.custom):
            self.trust = AkTrust.PINNED
        else:
            self.trust = AkTrust.CERTIFICATE if self.this.certificate is not None else AkTrust.SELF_ASSERTED

    def attributes(self) -> None:
        """It is restricted, made and kept in this TPM, and no decryption key."""
        if self.known is None:
            keys.check_attributes(self.this)

    def chain(self) -> None:
        """Algorithms, names, signatures and constraints from the key's certificate up to a root."""
        certificate = self.this.certificate
        if self.known is None and self.trust is AkTrust.CERTIFICATE and certificate is not None:
            self._path = keys.build(certificate, self.endorsements, trusted=self._trusted(), now=self.now)

    def validity(self) -> None:
        """Every certificate is valid now."""
        if self._path is not None:
            self._path.validity(self.now)

    def root(self) -> None:
        """The root's key is trusted; without a certificate, the key itself is pinned, or nothing else was asked for."""
        if self._path is not None:
            self._path.anchor(self._trusted())
        elif self.known is None and self.trust is AkTrust.SELF_ASSERTED:
            keys.check_self_asserted(self.this, vendors=self.anchors.vendor)

    def revoked(self) -> None:
        """None is revoked, by a fresh CRL of each issuer. What was found about the key is then remembered."""
        if self.known is not None:
            return
        fresh = []
        if self._path is not None and self.revocation is Revocation.REQUIRED:
            fresh = self._path.revocation(self.endorsements, self.now, keys.CRL)
        self.known = known = self._verified_key([(crl.this_update, crl.next_update) for crl in fresh])
        if self.remembered is not None:
            self.remembered.keep(self._key, Chain(known, known.window))

    def quote_signatures(self) -> None:
        """Each quote is signed by the key."""
        key = self.this.key
        self.quotes = []
        for attest, signature in zip(self.attests, self.signatures, strict=True):
            check_signature(signature, attest.raw, key)
            self.quotes.append(Quote(attest, signature.scheme, signature.bank))

    def one_boot(self) -> None:
        """Several quotes are of one boot of one TPM, for one nonce: their PCRs belong together."""
        first = _boot(self.attests[0])
        for attest in self.attests[1:]:
            if _boot(attest) != first:
                raise EvidenceError(
                    "the quotes are not of one boot, or not for one nonce",
                    code="quotes_differ",
                    tee=TEE,
                    field="quotes",
                    expected=[str(value) for value in first],
                    got=[str(value) for value in _boot(attest)],
                    spec=SPEC,
                )

    def nonce(self) -> None:
        """The quote holds qualifying data; one that holds none was made for nobody, and may be of any time."""
        if not self.attests[0].extra_data:
            raise FreshnessFailed(
                "the quote was made for no nonce",
                code="nonce_missing",
                tee=TEE,
                field="extra_data",
                spec=SPEC,
                hint="TPM2_Quote takes the nonce as qualifying data",
            )

    def selection(self) -> None:
        """The values are those that the quotes sign; only what they select is kept."""
        wanted = _EVERY_PCR if self.evidence.full else None
        self.pcrs = pcrs = quoted_pcrs(self.quotes[0], self.evidence.pcrs, wanted=wanted)
        for quote in self.quotes[1:]:
            for bank, values in quoted_pcrs(quote, self.evidence.pcrs).items():
                pcrs[bank] = {**pcrs.get(bank, {}), **values}

    def event_log(self) -> None:
        """The firmware's log leads to the quoted PCRs in every bank that both have."""
        if self.evidence.event_log is None:
            return
        self.log = log = EventLog.parse(self.evidence.event_log)
        banks = [bank for bank in self.pcrs if log.position(bank) is not None]
        if not banks:
            raise UnsupportedEvidence(
                "the event log has no digests of a bank that was quoted",
                code="event_log_bank",
                tee=TEE,
                field="event_log",
                expected=names(self.pcrs),
                got=names(log.banks),
                spec=replay.SPEC,
            )
        for bank in banks:
            replay.check(log, bank, self.pcrs[bank], tee=TEE, required=FIRMWARE_PCRS)
        self.log_banks = tuple(names(banks))

    def event_data(self) -> None:
        """Data that the specification says is hashed is what was hashed, of every quoted register."""
        if self.log is None:
            return
        for bank, values in self.pcrs.items():
            if self.log.position(bank) is not None:
                facts.check_data(self.log, bank, tee=TEE, registers=values)
        strongest = max((b for b in self.pcrs if self.log.position(b) is not None), key=lambda bank: bank.size)
        self.facts = facts.facts(self.log, strongest, quoted=self.pcrs[strongest])

    def ima_log(self) -> None:
        """IMA's list has true template hashes and leads to the quoted PCR 10."""
        if self.evidence.ima_log is None:
            return
        entries = ima.parse(self.evidence.ima_log)
        ima.check_templates(entries, tee=TEE)
        banks = [bank for bank, values in self.pcrs.items() if ima.IMA_PCR in values]
        if not banks:
            raise UnsupportedEvidence(
                "a list of IMA, but no quote over PCR 10",
                code="ima_not_quoted",
                tee=TEE,
                field="ima_log",
                expected=ima.IMA_PCR,
                spec=ima.SPEC,
            )
        for bank in banks:
            self.ima_entries = ima.check(entries, bank, self.pcrs[bank][ima.IMA_PCR], tee=TEE)
        self.ima_banks = tuple(names(banks))

    def bound(self) -> None:
        """The quote was made for this nonce and key: qualifying data in full."""
        if self.report_data is not None:
            check_report_data(TEE, self.report_data, ReportData(self.attests[0].extra_data))

    def started_for(self) -> None:
        """PCR 8 is what was expected, whole."""
        if self.init_data is None:
            return
        got = self.pcrs.get(SHA256, {}).get(INIT_DATA_PCR)
        if got is None or not compare_digest(self.init_data, got):
            raise BindingMismatch(
                "the guest was not started with this init data",
                code="init_data_mismatch",
                tee=TEE,
                field="pcr08",
                expected=self.init_data,
                got=got,
                spec="evidence 14",
                hint="PCR 8 holds SHA-256(32 zero bytes || digest of the init data)",
            )

    def _trusted(self) -> frozenset[bytes]:
        return self.anchors.among(keys.ROOTS)

    def _verified_key(self, crls: list[tuple[datetime, datetime]]) -> VerifiedAk:
        if self._path is None:
            pin = self.this.fingerprint.hex()
            window = Window.around(self.now, ())
            return VerifiedAk(self.this, self.trust, RootKind.CUSTOM, pin, FOREVER, "nothing", window)
        root = self._path.root.spki_fingerprint
        names = [role.name for role in self._path.profile.roles]
        ends = [(item.not_after, name) for item, name in zip(self._path.certificates, names, strict=True)]
        expires, first = min([*ends, *((end, "crl") for _, end in crls)])
        all_crls = [(crl.this_update, crl.next_update) for crl in self.endorsements.crls]
        return VerifiedAk(
            self.this,
            self.trust,
            self.anchors.kind(root, keys.ROOTS),
            root.hex(),
            expires,
            first,
            Window.around(self.now, [*self._path.lifetimes(), *all_crls]),
        )


def _boot(attest: Attest) -> tuple[object, ...]:
    return attest.extra_data, attest.reset_count, attest.restart_count, attest.firmware_version, attest.qualified_signer


def names(banks: Iterable[Bank]) -> list[str]:
    """The names of banks, in their order."""
    return [bank.name for bank in banks]
