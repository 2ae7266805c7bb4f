"""The checks of evidence 4.3, one method each, over one piece of SEV-SNP evidence. ``verify`` runs them in order.

Each is silent or raises an error with a code of its own. The kind of key is the report's word and must be the
certificate's: a VLEK is never tried where a VCEK is due.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial

from adyton.crypto.chain import by_preference
from adyton.crypto.ecdsa import verify_p384
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import (
    BindingMismatch,
    EndorsementError,
    EndorsementMissing,
    EvidenceError,
    MalformedEvidence,
    SignatureInvalid,
    UnsupportedEvidence,
)
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.deferred import Deferred
from adyton.tee.snp import claims as claims_of
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SIGNED_SIZE, SigningKey, SnpReport
from adyton.tee.snp.alike import Shape
from adyton.tee.snp.endorsements import KEY_SERVICE, Leaf, VerifiedChain, Walk, is_leaf, read_leaf
from adyton.tee.snp.product import Product
from adyton.tee.snp.same_text import digest_of

TEE = "snp"


def check_signature(leaf: Leaf, signature: bytes, signed: bytes) -> None:
    """ECDSA P-384 with SHA-384 over bytes 0 to 0x29F; r and s little-endian in 72 bytes each."""
    try:
        verify_p384(leaf.key, signature, signed, size=72, byteorder="little")
    except SignatureInvalid as error:
        raise SignatureInvalid(
            "the report's signature does not verify under the certified key",
            code="report_sig",
            tee=TEE,
            field="signature",
            spec="evidence 4.3.6",
            hint="the report was changed, or signed by another chip or for another TCB",
        ) from error


def check_host_data(expected: bytes, got: bytes) -> None:
    """HOST_DATA is what was expected, in full length."""
    if not hmac.compare_digest(expected, got):
        raise BindingMismatch(
            "the guest was not started with this init data",
            code="init_data_mismatch",
            tee=TEE,
            field="host_data",
            expected=expected,
            got=got,
            spec="evidence 14",
        )


def memory_key(
    endorsements: EndorsementSet, certificates: bytes, anchors: TrustAnchors, revocation: Revocation, shape: Shape
) -> tuple[object, ...]:
    """All that choosing and verifying a chain looks at, apart from the time. ``certificates``: digest of the evidence's own."""
    required = revocation is Revocation.REQUIRED
    return (TEE, endorsements.digest, certificates, anchors.vendor, anchors.custom, required, *shape.traits)


class Verification:
    """One verification: what was given, and what the checks have found so far."""

    __slots__ = (
        "_json", "_walk", "anchors", "chain", "endorsements", "init_data", "leaf", "now", "product", "raw", "report",
        "report_data", "revocation", "rivals",
    )  # fmt: skip
    leaf: Leaf
    _walk: Walk

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
    ) -> None:
        self.endorsements = endorsements
        self.now = now
        self.anchors = anchors
        self.revocation = revocation
        self.report_data = report_data
        self.init_data = init_data
        self.chain: VerifiedChain | None = None
        self.rivals: list[Leaf] = []
        self._json = json_form.parse(evidence) if json_form.is_json(evidence) else None
        self.report = self._json.report if self._json is not None else SnpReport.parse(evidence)
        self.raw = self._json.encoded if self._json is not None else evidence
        self.product: Product | None = claims_of.product_of(self.report)

    def memory_key(self, shape: Shape) -> tuple[object, ...]:
        """All that choosing and verifying a chain looks at, apart from the time."""
        evidence = self._json
        text = (evidence.document, evidence.start, evidence.end) if evidence is not None else (b"", 0, 0)
        return memory_key(self.endorsements, digest_of(*text), self.anchors, self.revocation, shape)

    def shape(self) -> Shape:
        """What this report has in common with those that are like it."""
        report = self.report
        kind, product = report.key_info >> 2 & 7, self.product.value if self.product is not None else None
        return Shape(self.raw, (kind, product, report.chip_id, report.reported_tcb.raw))

    # The checks, in order. Each is silent or raises.

    def format(self) -> None:
        """4.3.1: length, version and algorithm were parsing's; here bit 17, and a generation that has a root."""
        report = self.report
        if not report.policy.reserved_bit:
            raise MalformedEvidence(
                "reserved bit 17 of the guest policy must be 1",
                code="policy_reserved_bit",
                tee=TEE,
                field="policy",
                got=hex(report.policy),
                spec="evidence 4.3.1",
            )
        if report.version > 2 and self.product is None:
            raise UnsupportedEvidence(
                "no root key is known for this generation of chips",
                code="product_unknown",
                tee=TEE,
                field="cpuid",
                expected=[product.value for product in Product],
                got=[hex(number) for number in report.cpuid or ()],
                spec="evidence 4.3.2",
            )

    def signing_key(self) -> None:
        """4.3.3: the report says which kind of key signed it, and it is one that can be verified."""
        kind = self.report.key_info.signing_key
        if kind is not SigningKey.VCEK and kind is not SigningKey.VLEK:
            raise EvidenceError(
                "the report was signed neither by a VCEK nor by a VLEK",
                code="signing_key",
                tee=TEE,
                field="key_info",
                expected="VCEK or VLEK",
                got=kind.name if kind is not None else f"reserved ({hex(self.report.key_info)})",
                spec="evidence 4.3.3",
            )

    def certificate(self) -> None:
        """Choose the leaf: the one that fits best among those at hand. Whether it fits is for the checks to say."""
        if self.chain is not None:
            return
        if self._json is not None and (listed := self._json.certificates()):
            self.endorsements = self.endorsements.plus(Certificate(encoded) for _, encoded in listed)
        leaves: list[Leaf] = []
        unreadable: EndorsementError | None = None
        for candidate in self.endorsements.certificates:
            try:
                if is_leaf(candidate):
                    leaves.append(read_leaf(candidate))
            except EndorsementError as error:
                unreadable = unreadable or error
        if not leaves:
            raise unreadable or self._leaf_missing()
        if len(leaves) > 1:
            fits = [self._fit(leaf) for leaf in leaves]
            best = max(fits)
            leaves = [leaf for leaf, fit in zip(leaves, fits, strict=True) if fit == best]
            leaves.sort(key=lambda leaf: by_preference(leaf.certificate, self.now))
        self.rivals = leaves
        self.leaf = leaves[0]

    def _fit(self, leaf: Leaf) -> tuple[bool, bool, bool, bool]:
        return (
            leaf.kind is self.report.key_info.signing_key,
            self.product is None or leaf.product is self.product,
            leaf.hardware_id is not None and _same_chip(leaf.hardware_id, self.report.chip_id),
            leaf.tcb == self.report.reported_tcb.components,
        )

    def _leaf_missing(self) -> EndorsementMissing:
        report = self.report
        kind = report.key_info.signing_key
        name = kind.name if kind is not None else "VCEK"
        hint = "ask the cloud provider for its VLEK certificate"
        if kind is SigningKey.VCEK and not report.chip_id_masked:
            product = self.product or Product.MILAN
            chip = report.chip_id[: product.hardware_id_size].hex()
            tcb = report.reported_tcb  # not current_tcb: the key is derived from what the report reports
            fmc = f"fmcSPL={tcb.fmc:02d}&" if tcb.fmc is not None else ""
            hint = (
                f"{KEY_SERVICE}/vcek/v1/{product.value}/{chip}?{fmc}blSPL={tcb.boot_loader:02d}"
                f"&teeSPL={tcb.tee:02d}&snpSPL={tcb.snp:02d}&ucodeSPL={tcb.microcode:02d} has it"
            )
        return EndorsementMissing(
            f"the {name} certificate that endorses the report's key is missing",
            code="leaf_missing",
            tee=TEE,
            field="leaf",
            expected=name,
            spec="evidence 4.3.4",
            hint=hint,
        )

    def same_product(self) -> None:
        """4.3.2: the certificate is for the generation that the report's CPUID names; version 2 has no CPUID."""
        product = self.product
        if product is None and self.leaf.product.has_fmc:  # and no chip of Turin ever wrote version 2
            raise self._mismatch("product_mismatch", "product", "Milan or Genoa", self.leaf.product_name, "4.3.2")
        if product is not None and self.leaf.product is not product:
            raise self._mismatch("product_mismatch", "product", product.value, self.leaf.product_name, "4.3.2")

    def key_kind(self) -> None:
        """4.3.3: the certificate is of the kind that the report names."""
        kind = self.report.key_info.signing_key
        if self.leaf.kind is not kind:
            raise self._mismatch("key_kind", "signing_key", kind.name if kind else None, self.leaf.kind.name, "4.3.3")

    def chip_id(self) -> None:
        """4.3.3: a VCEK is this chip's. A masked chip id (zeros) cannot be compared, and stands in ``unchecked``."""
        expected = self.leaf.hardware_id
        if expected is None or self.report.chip_id_masked:
            return
        if not _same_chip(expected, self.report.chip_id):
            raise self._mismatch("chip_id", "chip_id", expected.ljust(64, b"\0"), self.report.chip_id, "4.3.3")

    def links(self) -> None:
        """4.3.4: algorithms, names, signatures and constraints up to a root."""
        if self.chain is None:
            self._walk = Walk(self.rivals, self.endorsements, self.anchors, self.now)
            self._walk.links()
            self.leaf = self._walk.leaf

    def validity(self) -> None:
        """4.3.4: every certificate is valid now."""
        if self.chain is None:
            self._walk.validity()

    def root(self) -> None:
        """4.3.4: the root's key is trusted."""
        if self.chain is None:
            self._walk.anchor()

    def revoked(self) -> None:
        """4.3.4: none is revoked, by a fresh CRL of the root."""
        if self.chain is None:
            self._walk.revocation(self.revocation)

    def tcb(self) -> None:
        """4.3.5: the key was derived for the TCB that the report reports, each component exactly."""
        got = self.report.reported_tcb.components
        if self.leaf.tcb != got:
            raise self._mismatch("tcb_mismatch", "reported_tcb", list(self.leaf.tcb), list(got), "4.3.5")

    def signature(self) -> None:
        """4.3.6: ECDSA P-384 with SHA-384 over bytes 0 to 0x29F; r and s little-endian in 72 bytes."""
        check_signature(self.leaf, self.report.r + self.report.s, self.raw[:SIGNED_SIZE])

    def tcb_order(self) -> None:
        """4.3.7: reported ≤ committed ≤ current, launch ≤ current, committed version ≤ current version."""
        report = self.report
        reported, committed, current = report.reported_tcb, report.committed_tcb, report.current_tcb
        for lower, upper, low, high in (
            ("reported", "committed", reported, committed),
            ("committed", "current", committed, current),
            ("launch", "current", report.launch_tcb, current),
        ):
            if low.raw != high.raw and not low <= high:
                raise self._disorder(f"{lower}_tcb", f"at most {upper}_tcb {high.raw.hex()}", low.raw.hex())
        if report.committed_version > report.current_version:
            raise self._disorder("committed_version", f"at most {report.current_version}", report.committed_version)

    def bound(self) -> None:
        """The report was made for this nonce and key."""
        if self.report_data is not None:
            check_report_data(TEE, self.report_data, ReportData(self.report.report_data))

    def started_for(self) -> None:
        """HOST_DATA is what was expected, in full length."""
        if self.init_data is not None:
            check_host_data(self.init_data, self.report.host_data)

    def _mismatch(self, code: str, field: str, expected: object, got: object, section: str) -> BindingMismatch:
        return BindingMismatch(
            f"the report and the certificate of its key disagree: {field}",
            code=code,
            tee=TEE,
            field=field,
            expected=expected,
            got=got,
            spec=f"evidence {section}",
        )

    def _disorder(self, field: str, expected: object, got: object) -> EvidenceError:
        return EvidenceError(
            "TCB versions that no firmware reports together",
            code="tcb_order",
            tee=TEE,
            field=field,
            expected=expected,
            got=got,
            spec="evidence 4.3.7",
        )

    def walked(self) -> VerifiedChain:
        """The chain that was walked. Call it after every check."""
        return self._walk.done()

    def skips(self, check: str) -> bool:
        """Whether this verification has nothing to do for a check: it was not asked for, or has nothing to compare."""
        if check == "revocation":
            return self.revocation is Revocation.UNCHECKED_AS_ASKED
        if check == "report_data":
            return self.report_data is None
        if check == "init_data":
            return self.init_data is None
        return check == "chip_id" and (self.leaf.hardware_id is None or self.report.chip_id_masked)

    def verified(self, chain: VerifiedChain, shape: Shape) -> VerifiedEvidence:
        """Hand over what was verified. Call it after every check."""
        report, provider = self.report, self.leaf.hardware_id is None
        checks, unchecked = _summary(  # in the order of _SKIPPABLE, as ``skips`` says
            self.revocation is Revocation.UNCHECKED_AS_ASKED,
            provider or report.chip_id_masked,
            self.report_data is None,
            self.init_data is None,
            provider=provider,
        )
        return VerifiedEvidence(
            tee=TEE,
            tee_class="cpu",
            claims=Deferred(
                partial(claims_of.with_leaf, report, self.leaf),
                {"vmpl": report.vmpl, "report_version": report.version, "measurement": report.measurement.hex()},
            ),
            coco_claims=claims_of.coco(report),
            tcb=Deferred(partial(claims_of.tcb, report)),
            report_data=ReportData(report.report_data),
            init_data=report.host_data,
            root=chain.root,
            root_fingerprint=chain.root_fingerprint,
            checks=checks,
            expires=chain.expires,
            expires_first=chain.expires_first,
            unchecked=unchecked,
            alike=(shape, self.leaf.product_name, self.leaf.hardware_id, self.leaf.csp_id),
        )


STEPS: tuple[tuple[Check, Callable[[Verification], None]], ...] = (
    (Check("format", ok=True, spec="evidence 4.3.1", group="report"), Verification.format),
    (Check("signing_key", ok=True, spec="evidence 4.3.3", group="report"), Verification.signing_key),
    (Check("certificate", ok=True, spec="evidence 4.3.4", group="certificates"), Verification.certificate),
    (Check("product", ok=True, spec="evidence 4.3.2", group="certificates"), Verification.same_product),
    (Check("key_kind", ok=True, spec="evidence 4.3.3", group="certificates"), Verification.key_kind),
    (Check("chip_id", ok=True, spec="evidence 4.3.3", group="certificates"), Verification.chip_id),
    (Check("chain", ok=True, spec="evidence 4.3.4", group="certificates"), Verification.links),
    (Check("validity", ok=True, spec="evidence 4.3.4", group="certificates"), Verification.validity),
    (Check("root", ok=True, spec="evidence 4.3.4", group="certificates"), Verification.root),
    (Check("revocation", ok=True, spec="evidence 4.3.4", group="certificates"), Verification.revoked),
    (Check("tcb", ok=True, spec="evidence 4.3.5", group="certificates"), Verification.tcb),
    (Check("report_sig", ok=True, spec="evidence 4.3.6", group="report"), Verification.signature),
    (Check("tcb_order", ok=True, spec="evidence 4.3.7", group="report"), Verification.tcb_order),
    (Check("report_data", ok=True, spec="kbs-protocol 1.5", group="binding"), Verification.bound),
    (Check("init_data", ok=True, spec="evidence 14", group="binding"), Verification.started_for),
)


_SKIPPABLE = ("revocation", "chip_id", "report_data", "init_data")


@lru_cache(maxsize=64)
def _summary(*skipped: bool, provider: bool) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """The checks that were passed, and what was not checked."""
    names = {name for name, skip in zip(_SKIPPABLE, skipped, strict=True) if skip}
    unchecked: list[str] = [name for name in ("revocation", "chip_id") if name in names]
    if provider:
        unchecked.append("csp_id")  # no chip is named; whose key it is, is the owner's list to say
    unchecked += [name for name in ("report_data", "init_data") if name in names]
    return tuple(check for check, _ in STEPS if check.id not in names), tuple(unchecked)


def _same_chip(hardware_id: bytes, chip_id: bytes) -> bool:
    """Whether a VCEK's hardware id is the report's chip id: its first bytes, and zeros after them."""
    return chip_id == hardware_id.ljust(64, b"\0")
