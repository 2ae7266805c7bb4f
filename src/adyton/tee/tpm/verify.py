"""Is this TPM evidence authentic? Every check of evidence 6 and 7, in order, each with an error code of its own.

CoCo's JSON or Adyton's bundle + endorsements + ``now`` → ``VerifiedEvidence``, or the first thing that is wrong. Not here:
whether PCRs are good, nor whether a key that nobody vouches for is enough: ``ak_trust`` says what it is, and ``unchecked``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from adyton.crypto.x509 import EndorsementSet
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.deferred import Deferred
from adyton.tee.eventlog import facts, ima, replay
from adyton.tee.eventlog.banks import SHA256
from adyton.tee.remembered import Remembered
from adyton.tee.steps import Step, done, walk
from adyton.tee.tpm import claims as claims_of
from adyton.tee.tpm import forms
from adyton.tee.tpm.abi import TEE, Attest, Signature
from adyton.tee.tpm.ak import AkTrust
from adyton.tee.tpm.checks import INIT_DATA_PCR, Verification, names

INIT_DATA_SIZE = 32


def verify(
    evidence: bytes,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    report_data: ReportData | None = None,
    init_data: bytes | None = None,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """As ``adyton.tee.verify``, for a TPM. ``report_data``: the whole qualifying data.

    ``init_data``: all 32 bytes of PCR 8, in the SHA-256 bank. ``VerifiedEvidence.init_data`` is empty if no quote signs it.
    """
    if init_data is not None and len(init_data) != INIT_DATA_SIZE:
        raise ValueError("PCR 8 has 32 bytes")
    run = Verification(
        evidence,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
        remembered=remembered,
    )
    walk(STEPS, run, trail)
    return _verified(run)


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the evidence says. Parsed only: its PCR values may be anybody's."""
    parsed = forms.parse(evidence)
    quotes: list[dict[str, JsonValue]] = []
    for message, signature in parsed.quotes:
        quotes.append(claims_of.of_quote(Attest.parse(message), Signature.parse(signature)))
    claims = {**quotes[0], "pcrs": claims_of.by_bank(parsed.pcrs)}
    if len(quotes) > 1:
        claims["quotes"] = [*quotes]
    return claims


def _verified(run: Verification) -> VerifiedEvidence:
    """Hand over what was verified. Call it after every check."""
    key = run.known
    if key is None:
        raise ValueError("not verified yet")
    attest = run.attests[0]
    pcr8 = run.pcrs.get(SHA256, {}).get(INIT_DATA_PCR)
    return VerifiedEvidence(
        tee=TEE,
        tee_class="cpu",
        claims=Deferred(partial(claims_of.of_verified, run, key)),
        coco_claims=Deferred(partial(claims_of.coco, run.pcrs, attest, run.evidence, pcr8, key.ak.spki)),
        tcb=Deferred(partial(claims_of.tcb, claims_of.latest(run.attests))),
        report_data=ReportData(attest.extra_data),
        init_data=pcr8 or b"",
        root=key.root,
        root_fingerprint=key.root_fingerprint,
        checks=done(STEPS, run),
        expires=key.expires,
        expires_first=key.expires_first,
        unchecked=_unchecked(run),
    )


def _unchecked(run: Verification) -> tuple[str, ...]:
    found: list[str] = []
    if run.trust is AkTrust.SELF_ASSERTED:
        found.append("ak")
    if run.trust is not AkTrust.CERTIFICATE:  # a public area in the evidence is the evidence's own word
        found.append("ak_attributes")
    if run.trust is AkTrust.CERTIFICATE and run.revocation is Revocation.UNCHECKED_AS_ASKED:
        found.append("revocation")
    if run.report_data is None:
        found.append("report_data")
    if run.init_data is None:
        found.append("init_data")
    if run.facts is not None:
        found += [f"event_log {problem}" for problem in run.facts.problems]
    return tuple(found)


def _certified(run: Verification) -> bool:
    return run.trust is AkTrust.CERTIFICATE


def _step(
    name: str,
    group: str,
    do: Callable[[Verification], None],
    *,
    spec: str = "evidence 6",
    applies: Callable[[Verification], bool] | None = None,
    tell: Callable[[Verification], tuple[JsonValue, JsonValue]] | None = None,
) -> Step[Verification]:
    return Step(Check(name, ok=True, spec=spec, group=group), do, applies, tell)


def _tell_key(run: Verification) -> tuple[JsonValue, JsonValue]:
    return None, f"{run.trust.value} {run.this.fingerprint.hex()}"


def _tell_root(run: Verification) -> tuple[JsonValue, JsonValue]:
    return None, run.known.root_fingerprint if run.known is not None else run.this.fingerprint.hex()


def _tell_pcrs(run: Verification) -> tuple[JsonValue, JsonValue]:
    return None, [f"{bank.name}: {len(values)} PCRs" for bank, values in run.pcrs.items()]


def _tell_log(run: Verification) -> tuple[JsonValue, JsonValue]:
    return [*names(run.pcrs)], [*run.log_banks]


def _tell_nonce(run: Verification) -> tuple[JsonValue, JsonValue]:
    expected = run.report_data.value.hex() if run.report_data is not None else None
    return expected, run.attests[0].extra_data.hex()


_V = Verification
STEPS: tuple[Step[Verification], ...] = (
    _step("ak", "key", _V.which_key, tell=_tell_key),
    _step("ak_attributes", "key", _V.attributes, applies=lambda run: run.this.area is not None),
    _step("chain", "key", _V.chain, applies=_certified),
    _step("validity", "key", _V.validity, applies=_certified),
    _step("root", "key", _V.root, applies=lambda run: run.trust is not AkTrust.SELF_ASSERTED, tell=_tell_root),
    _step(
        "revocation",
        "key",
        _V.revoked,
        applies=lambda run: _certified(run) and run.revocation is Revocation.REQUIRED,
    ),
    _step("quote_sig", "quote", _V.quote_signatures),
    _step("quotes_agree", "quote", _V.one_boot, applies=lambda run: len(run.attests) > 1),
    _step("nonce", "quote", _V.nonce, tell=_tell_nonce),
    _step("pcrs", "quote", _V.selection, tell=_tell_pcrs),
    _step(
        "event_log",
        "logs",
        _V.event_log,
        spec=replay.SPEC,
        applies=lambda run: run.evidence.event_log is not None,
        tell=_tell_log,
    ),
    _step("event_data", "logs", _V.event_data, spec=facts.SPEC, applies=lambda run: run.evidence.event_log is not None),
    _step("ima_log", "logs", _V.ima_log, spec=ima.SPEC, applies=lambda run: run.evidence.ima_log is not None),
    _step(
        "report_data",
        "binding",
        _V.bound,
        spec="kbs-protocol 1.5",
        applies=lambda run: run.report_data is not None,
        tell=_tell_nonce,
    ),
    _step("init_data", "binding", _V.started_for, spec="evidence 14", applies=lambda run: run.init_data is not None),
)
