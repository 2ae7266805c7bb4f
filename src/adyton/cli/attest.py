"""``adyton broker attest``: what a broker is, proved, compared with what its source gives, and kept for later."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli.collecting import cache_option, now, opened, source_options
from adyton.cli.files import write
from adyton.cli.output import Exit, exit_status, json_option, print_error, print_json, say
from adyton.cli.places import places
from adyton.cli.verdict import Verdict
from adyton.cli.verdict import show as show_verdict
from adyton.errors import AdytonError, ConfigError
from adyton.rats.types import Check, TrustAnchors, VerifiedEvidence

if TYPE_CHECKING:
    from adyton.client.broker_attestation import Answered, Wanted
    from adyton.client.known_brokers import Known
    from adyton.crypto.x509 import EndorsementSet

_PATH = click.Path(exists=True, path_type=Path)
_HEX = re.compile(r"(?:[0-9a-f]{2}){32,64}\Z")


@click.command()
@click.argument("url")
@click.option("--measurement", "measurements", multiple=True, metavar="HEX", help="What may run there. Repeatable.")
@click.option(
    "--workload", "workloads", multiple=True, metavar="DIGEST", help="The document it may run for. Repeatable."
)
@click.option("--trust-root", "roots", multiple=True, type=_PATH, help="Trust this root, not the vendors'. Repeatable.")
@click.option("--trust-dev-root", "dev_roots", multiple=True, metavar="FINGERPRINT", help="Trust a development TEE's.")
@click.option("--endorsements", multiple=True, type=_PATH, help="Certificates and CRLs: a file or directory.")
@click.option("--fetch", is_flag=True, help="Get what is missing from the vendors, through the cache of endorsements.")
@source_options
@cache_option
@click.option("--broker-pin", metavar="PIN", help="Its TLS key must also be this one: sha256:<hex> of the SPKI.")
@click.option("--jwks", type=click.Path(dir_okay=False, path_type=Path), help="Write its attested JWK set there.")
@click.option("--show-only", is_flag=True, help="Compare with nothing that is not named, and keep nothing.")
@click.option("--replace", is_flag=True, help="It is another one than before, or has another TLS key: keep that.")
@json_option
def attest(url: str, as_json: bool, **options: Any) -> None:
    """Have the broker at URL prove what it is; keep it as known if it is what --measurement and --workload say.

    Its evidence covers a nonce of this command, the TLS key of this connection, the keys of its tokens and of its
    record. Secrets go from this user to no broker elsewhere that was not attested (or pinned). Once it is known,
    it may be attested again without naming anything: any change is refused.
    """
    trail: list[Check] = []
    state = _State(as_json=as_json, url=url)
    try:
        _attest(url, options, trail, state)
    except AdytonError as error:
        _failed(state, trail, error)
        raise Exit(exit_status(error)) from error


class _State:
    """How far it came, for whoever tells of a failure."""

    def __init__(self, *, as_json: bool, url: str) -> None:
        self.as_json = as_json
        self.url = url
        self.at = now()
        self.tee = ""
        self.verified: VerifiedEvidence | None = None


def _attest(url: str, options: dict[str, Any], trail: list[Check], state: _State) -> None:
    from adyton.client import broker_attestation, known_brokers
    from adyton.client.address import BrokerAddress
    from adyton.crypto.aead import random_bytes

    wanted = _wanted(options["measurements"], options["workloads"])
    address = BrokerAddress(url, pin=options["broker_pin"])
    file = places().known_brokers
    known = known_brokers.read(file).get(known_brokers.origin(url))
    endorsements, anchors = _trusted(options)
    nonce = random_bytes(32)
    answered = _asked(address, nonce, known)
    proof = answered.proof
    state.tee = proof.tee
    if options["fetch"]:
        endorsements = endorsements.with_all(_fetched(proof.tee, bytes(proof.evidence), state.at, options))
    verified = broker_attestation.verify(answered, nonce, endorsements, anchors, state.at, trail)
    state.verified = verified
    found = _found(url, answered, verified, state.at, known)
    compared = _compare(wanted, known, found, verified, trail, options)
    keeps = compared and not options["show_only"] and bool(answered.pin)
    if keeps:
        known_brokers.change(file, lambda table: table.update({found.url: found}))
    if options["jwks"] is not None:
        write(options["jwks"], proof.jwks)
    _tell(state, trail, verified, answered, found, keeps=keeps, compared=compared)


def _asked(address: Any, nonce: bytes, known: Known | None) -> Answered:
    """The answer; that a broker which once proved itself no longer does is a change, not a lack."""
    from adyton.client import broker_attestation
    from adyton.errors import NotFound, ReleaseRefused

    try:
        return broker_attestation.ask(address, nonce)
    except NotFound as error:
        if known is None or known.by != "attested":
            raise
        raise ReleaseRefused(
            f"{known.url} proved on {known.seen[:10]} what it is, and now has no attester",
            code="broker_identity_changed",
            reasons=(f"measurement: known {known.measurement}, now none",),
            hint="if its owner says that this is right: adyton broker pin URL PIN --replace",
        ) from error


def _compare(  # noqa: PLR0917 -- one value each
    wanted: Wanted,
    known: Known | None,
    found: Known,
    verified: VerifiedEvidence,
    trail: list[Check],
    options: dict[str, Any],
) -> bool:
    """Refuse what is not as wanted or as known; tells whether it was compared with anything."""
    from adyton.client import broker_attestation, known_brokers
    from adyton.client.broker_attestation import Wanted

    attested = known is not None and known.by == "attested" and not options["replace"]
    if wanted.measurements:
        broker_attestation.check(verified, wanted, trail)
    elif attested and known is not None:
        fields = frozenset({known.workload} if known.workload else ())
        known_brokers.compare(known, found)
        broker_attestation.check(verified, Wanted(frozenset({known.measurement}), fields=fields), trail)
    elif not options["show_only"]:
        raise ConfigError(
            "authentic evidence, of what it names: but is that the broker that you expect?",
            code="broker_identity_unnamed",
            field="measurement",
            expected="--measurement HEX, and --workload DIGEST if it runs for a document",
            got=found.measurement,
            hint="adyton measure guest (and workload) compute them from what you build; --show-only compares nothing",
        )
    if known is not None and not options["replace"]:
        known_brokers.compare(known, found)
    return bool(wanted.measurements) or attested


def _wanted(measurements: tuple[str, ...], workloads: tuple[str, ...]) -> Wanted:
    from adyton.client.broker_attestation import Wanted

    found = [[one.strip().lower().removeprefix("sha256:") for one in given] for given in (measurements, workloads)]
    for name, values in zip(("--measurement", "--workload"), found, strict=True):
        for value in values:
            if not _HEX.match(value) or (name == "--workload" and len(value) != 64):
                raise click.UsageError(f"{name}: {value[:80]!r} is not the whole digest in hex")
    if found[1] and not found[0]:
        raise click.UsageError("--workload says for what it runs; --measurement, which is needed too, what runs")
    return Wanted(frozenset(found[0]), frozenset(found[1]))


def _trusted(options: dict[str, Any]) -> tuple[EndorsementSet, TrustAnchors]:
    from adyton.collateral import directory
    from adyton.crypto.x509 import EndorsementSet

    if not options["fetch"] and (options["from_"] or options["offline"] or options["ca_file"]):
        raise click.UsageError("--from, --offline and --ca say where to --fetch from")
    endorsements = directory.load(options["endorsements"]) if options["endorsements"] else EndorsementSet()
    trusted: set[bytes] = set()
    if options["roots"]:
        roots = directory.load(options["roots"])
        if not roots.fingerprints:
            raise click.UsageError("--trust-root: no certificate or public key in it")
        endorsements, trusted = endorsements.with_all(roots), set(roots.fingerprints)
    for text in options["dev_roots"]:
        digits = text.lower().removeprefix("sha256:")
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise click.UsageError("--trust-dev-root takes 64 hex digits: SHA-256 of the root key's SPKI")
        trusted.add(bytes.fromhex(digits))
    return endorsements, TrustAnchors(vendor=False, custom=frozenset(trusted)) if trusted else TrustAnchors()


def _fetched(tee: str, evidence: bytes, at: datetime, options: dict[str, Any]) -> EndorsementSet:
    from adyton.collateral.gather import gather

    problems: list[AdytonError] = []
    where = (options["cache_directory"], options["from_"], options["ca_file"])
    with opened(*where, offline=options["offline"]) as collecting:
        found = gather(tee, evidence, collecting.collector, at, problems=problems)
    for problem in problems:
        say(f"not fetched: {problem.message} [{problem.code}]")
    return found


def _found(url: str, answered: Answered, verified: VerifiedEvidence, at: datetime, known: Known | None) -> Known:
    from adyton.client.known_brokers import Known, origin
    from adyton.protocol.peers import Identity, tcb_levels

    identity = Identity.of(verified)
    seen = at.isoformat(timespec="seconds")
    return Known(
        url=origin(url),
        pin=answered.pin,
        by="attested",
        first_seen=known.first_seen if known is not None else seen,
        seen=seen,
        tee=verified.tee,
        measurement=identity.measurement,
        workload=identity.init_data if any(verified.init_data) else "",
        root=f"{verified.root.value}:{verified.root_fingerprint}",
        log=answered.proof.facts.log_key.text(),
        tcb=tcb_levels(verified.tcb),
    )


def _tell(
    state: _State,
    trail: list[Check],
    verified: VerifiedEvidence,
    answered: Answered,
    found: Known,
    *,
    keeps: bool,
    compared: bool,
) -> None:
    facts = answered.proof.facts
    if state.as_json:
        print_json(
            {
                "url": found.url,
                "verified": True,
                "compared": compared,
                "known": keeps,
                "identity": {"tee": found.tee, "measurement": found.measurement, "workload": found.workload or None},
                "root": verified.root.value,
                "root_fingerprint": verified.root_fingerprint,
                "tls": facts.tls or None,
                "jwks": facts.jwks,
                "log": facts.log,
                "environment": facts.environment,
                "checks": _checks(trail),
                "unchecked": [name for name in verified.unchecked if name != "init_data"],
            }
        )
        return
    show_verdict(Verdict(state.url, verified.tee, state.at, tuple(trail), verified=verified))
    said = (("TLS key", facts.tls or "none: plain HTTP"), ("token keys", facts.jwks), ("log key", facts.log))
    for name, value in (*said, ("environment", facts.environment)):
        say(f"{name:12} {value}")
    if not compared:
        say("compared     with NOTHING: it is authentic, and may be anything")
    elif keeps:
        say(f"known        {found.url}, in {places().known_brokers}")
    elif not answered.pin:
        say("not kept     without TLS there is no key to know it by")


def _failed(state: _State, trail: list[Check], error: AdytonError) -> None:
    if state.as_json:
        print_json({"url": state.url, "verified": False, "error": error.as_dict(), "checks": _checks(trail)})
    elif trail:
        show_verdict(Verdict(state.url, state.tee, state.at, tuple(trail), error=error))
    print_error(error)


def _checks(trail: list[Check]) -> list[dict[str, Any]]:
    return [{"id": one.id, "ok": one.ok, "spec": one.spec} for one in trail]
