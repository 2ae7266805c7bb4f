"""AMD's endorsements: what a VCEK or VLEK says, and the walk from it to a trusted root.

VCEK (one chip at one TCB) ← ASK ← ARK; VLEK (one cloud provider at one TCB) ← ASVK ← ARK. RSA-4096, RSASSA-PSS with
SHA-384; the leaf's key is P-384 (AMD 57230; evidence 4.2). Roots are pinned by the SHA-256 of their SPKI (evidence 2);
their certificates, like all others, come from the evidence or from given endorsements and are believed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto import chain as walk
from adyton.crypto.chain import Role
from adyton.crypto.x509 import BASIC_CONSTRAINTS, KEY_USAGE, Certificate, Crl, EndorsementSet
from adyton.errors import EndorsementError, EndorsementMalformed, EndorsementMissing, EndorsementUntrusted
from adyton.rats.types import Revocation, RootKind, TrustAnchors
from adyton.tee.remembered import Window
from adyton.tee.snp.abi import SigningKey
from adyton.tee.snp.product import Product, by_name
from adyton.wire import der

SPEC = "evidence 4.3.4"
LEAF = Role("snp", "leaf", SPEC)
INTERMEDIATE = Role("snp", "intermediate", SPEC)
ROOT = Role("snp", "root", SPEC)
CRL = Role("snp", "crl", SPEC)

# SHA-256 of the SPKI of AMD's root keys (evidence 2), computed from the certificates that AMD's key service hands out.
ROOTS = {
    Product.MILAN: bytes.fromhex("9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9"),
    Product.GENOA: bytes.fromhex("429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831"),
    Product.TURIN: bytes.fromhex("4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08"),
}
# SHA-256 of the whole certificates of those keys; their own signatures were verified when this was written down.
ROOT_CERTIFICATES = frozenset(
    {
        bytes.fromhex("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
        bytes.fromhex("4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
        bytes.fromhex("1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
    }
)
KEY_SERVICE = "https://kdsintf.amd.com"

_ARC = "1.3.6.1.4.1.3704.1."
_ARC_DER = bytes.fromhex("2b060104019c7801")  # that arc inside an OBJECT IDENTIFIER
_PARTS = {"fmc": "3.9", "boot_loader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}
_CRITICAL = frozenset({BASIC_CONSTRAINTS, KEY_USAGE})
_MAX_CANDIDATES = 8
_LEAF_NAMES = {SigningKey.VCEK: "SEV-VCEK", SigningKey.VLEK: "SEV-VLEK"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a VCEK or VLEK certificate says. ``tcb`` in the order of ``Tcb.components``.

    ``hardware_id`` is 64 bytes (Turin: 8) and there for a VCEK only, ``csp_id`` for a VLEK only.
    """

    certificate: Certificate
    kind: SigningKey
    product: Product
    product_name: str
    tcb: tuple[int, int, int, int, int]
    hardware_id: bytes | None
    csp_id: str | None
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """A chain that leads to a trusted root: which, and until when all of it is valid. ``window``: see ``Window``."""

    root: RootKind
    root_fingerprint: str
    expires: datetime
    expires_first: str
    window: Window


def vendor_extensions(certificate: Certificate) -> dict[str, bytes]:
    """Contents of AMD's extensions by the part of their identifier below 1.3.6.1.4.1.3704.1, such as ``3.1``."""
    size = len(_ARC)
    return {oid[size:]: value for oid, value in certificate.unknown_extensions.items() if oid.startswith(_ARC)}


def is_leaf(certificate: Certificate) -> bool:
    """Whether the certificate may be a VCEK or VLEK: AMD's arc stands in it, as in each of AMD's extensions."""
    return _ARC_DER in certificate.der


@lru_cache(maxsize=4096)
def read_leaf(certificate: Certificate) -> Leaf:
    """What the certificate says, or ``EndorsementMalformed``. Its kind is told by name and extensions, never guessed."""
    found = vendor_extensions(certificate)
    key = certificate.public_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise LEAF.error(EndorsementMalformed, "key", "not a P-384 key", expected="P-384")
    try:
        structure = der.read_integer(found["1"])
        name = der.read_ia5(found["2"])
        parts = {part: der.read_integer(found[oid]) for part, oid in _PARTS.items() if part != "fmc" or structure}
        csp_id = der.read_ia5(found["5"]) if "5" in found else None
    except KeyError as error:
        raise _bad_extension(f"{_ARC}{error.args[0]} is missing") from error
    except ValueError as error:
        raise _bad_extension(str(error)) from error
    product = by_name(name)
    if product is None:
        raise _bad_extension(f"unknown product {name[:40]!r}")
    if structure != int(product.has_fmc) or ("3.9" in found) is not product.has_fmc:
        raise _bad_extension(f"structure version {structure} does not fit {name}")
    if any(value > 0xFF for value in parts.values()):
        raise _bad_extension("a component of the TCB is larger than a byte")
    hardware_id = found.get("4")
    if hardware_id is not None and csp_id is None:
        kind = SigningKey.VCEK
        if len(hardware_id) != product.hardware_id_size:
            raise _bad_extension(f"the hardware id has {len(hardware_id)} bytes")
    elif hardware_id is None and csp_id:
        kind = SigningKey.VLEK
    else:
        raise _bad_extension("it is neither a VCEK (hardware id) nor a VLEK (provider's id)")
    if certificate.common_name != _LEAF_NAMES[kind]:
        raise LEAF.error(
            EndorsementMalformed,
            "name",
            "its name and its extensions contradict each other",
            expected=_LEAF_NAMES[kind],
            got=certificate.common_name[:80],
        )
    tcb = (parts.get("fmc", 0), parts["boot_loader"], parts["tee"], parts["snp"], parts["microcode"])
    return Leaf(certificate, kind, product, name, tcb, hardware_id, csp_id, key)


def _bad_extension(reason: str) -> Exception:
    return LEAF.error(EndorsementMalformed, "extensions", f"AMD's extensions: {reason}")


class Walk:
    """One walk from a leaf to a trusted root, in steps that each check one thing. ``links`` first, ``done`` last."""

    def __init__(self, leaves: Sequence[Leaf], pool: EndorsementSet, anchors: TrustAnchors, now: datetime) -> None:
        """``leaves``: one, or several that fit equally well, best first; ``pool``: everything there is."""
        self.leaf = leaf = leaves[0]
        said = _said(leaf)  # what was checked of the first must hold for the one that is taken
        self._leaves = [other for other in leaves if _said(other) == said] if len(leaves) > 1 else leaves
        self._seen = [leaf.certificate for leaf in leaves]
        self._pool = pool
        self._now = now
        self._vendor = ROOTS[leaf.product] if anchors.vendor else None
        self._trusted = anchors.custom | ({self._vendor} if self._vendor else frozenset())
        self._crl: tuple[datetime, datetime] | None = None

    def links(self) -> None:
        """Names, algorithms, keys, signatures, constraints: leaf ← intermediate ← root ← root."""
        failures: list[EndorsementError] = []
        untrusted = None
        for path in self._paths(failures):
            if path[2].spki_fingerprint in self._trusted:
                break
            untrusted = untrusted or path
        else:
            if untrusted is None:
                raise failures[0]
            path = untrusted  # ``anchor`` refuses it, after everything else about it was found right
        self.leaf, self.intermediate, self.root = path

    def _paths(self, failures: list[EndorsementError]) -> Iterator[tuple[Leaf, Certificate, Certificate]]:
        """Every sound path, the preferred ones first; what is wrong with the others goes to ``failures``.

        Names are no identities: among certificates of one name, whoever's they are, the one that signed is meant.
        """
        for leaf in self._leaves[:_MAX_CANDIDATES]:
            certificate, product = leaf.certificate, leaf.product.value
            name = f"SEV-VLEK-{product}" if leaf.kind is SigningKey.VLEK else f"SEV-{product}"
            try:
                walk.check_leaf(certificate, LEAF)
                walk.check_critical(certificate, LEAF, known=_CRITICAL)
                walk.check_pss_sha384(certificate, LEAF)
                issuers = self._named(certificate.issuer, name, INTERMEDIATE)
            except EndorsementError as error:
                failures.append(error)
                continue
            for intermediate in _signers(certificate, issuers, LEAF, INTERMEDIATE, failures):
                try:
                    roots = self._named(intermediate.issuer, f"ARK-{product}", ROOT)
                except EndorsementError as error:
                    failures.append(error)
                    continue
                for root in _signers(intermediate, roots, INTERMEDIATE, ROOT, failures):
                    yield leaf, intermediate, root

    def validity(self) -> None:
        """Each of the three at ``now``."""
        walk.check_validity(self.leaf.certificate, self._now, LEAF)
        walk.check_validity(self.intermediate, self._now, INTERMEDIATE)
        walk.check_validity(self.root, self._now, ROOT)

    def anchor(self) -> None:
        """The root's key is this product's pinned one, or one that the caller answers for."""
        fingerprint = self.root.spki_fingerprint
        if fingerprint not in self._trusted:
            raise ROOT.error(
                EndorsementUntrusted,
                "untrusted",
                "its key is not a trusted one, whatever it calls itself",
                expected=sorted(pin.hex() for pin in self._trusted),
                got=fingerprint,
                hint="a development root is trusted only where its fingerprint is configured",
            )

    def revocation(self, wanted: Revocation) -> None:
        """Leaf and intermediate are not on a CRL of the root, and one is fresh; nothing if it was asked not to check."""
        if wanted is Revocation.UNCHECKED_AS_ASKED:
            return
        crl = walk.check_revocation(
            ((self.intermediate, INTERMEDIATE), (self.leaf.certificate, LEAF)),
            self.root,
            self._pool.crls_by(self.root.subject),
            self._now,
            role=CRL,
        )
        self._crl = (crl.this_update, crl.next_update)

    def done(self) -> VerifiedChain:
        """The verified chain. Call it after every step."""
        fingerprint = self.root.spki_fingerprint
        ends = [
            (self.leaf.certificate.not_after, self.leaf.kind.name),
            (self.intermediate.not_after, "ASVK" if self.leaf.kind is SigningKey.VLEK else "ASK"),
            (self.root.not_after, "ARK"),
        ]
        if self._crl is not None:
            ends.append((self._crl[1], "CRL"))
        expires, first = min(ends)
        lifetimes = [(item.not_before, item.not_after) for item in self._seen]
        lifetimes += [(crl.this_update, crl.next_update) for crl in self._pool.crls_by(self.root.subject)]
        return VerifiedChain(
            root=RootKind.VENDOR if fingerprint == self._vendor else RootKind.CUSTOM,
            root_fingerprint=fingerprint.hex(),
            expires=expires,
            expires_first=first,
            window=Window.around(self._now, lifetimes),
        )

    def _named(self, name: bytes, common_name: str, role: Role) -> tuple[Certificate, ...]:
        """The certificates with this subject, whose common name must be as it must be."""
        found = self._pool.with_subject(name)
        self._seen += found
        if len(found) > 1:
            by_preference = sorted(found, key=lambda certificate: walk.by_preference(certificate, self._now))
            found = tuple(by_preference[:_MAX_CANDIDATES])
        if not found:
            path = "vlek" if self.leaf.kind is SigningKey.VLEK else "vcek"
            raise role.error(
                EndorsementMissing,
                "missing",
                "not among the evidence's certificates nor the given endorsements",
                expected=common_name,
                hint=f"{KEY_SERVICE}/{path}/v1/{self.leaf.product.value}/cert_chain has it",
            )
        if found[0].common_name != common_name:
            raise role.error(
                EndorsementUntrusted,
                "name",
                "not the issuer for this product and kind of key",
                expected=common_name,
                got=found[0].common_name[:80],
            )
        return found


def check_crl(crl: Crl, pool: EndorsementSet, *, anchors: TrustAnchors, now: datetime) -> Certificate:
    """A CRL alone: signed by a trusted root that is valid now, and fresh. Returns the root."""
    trusted = anchors.among(frozenset(ROOTS.values()))
    roots = [root for root in pool.with_subject(crl.issuer) if root.spki_fingerprint in trusted]
    if not roots:
        raise CRL.error(EndorsementUntrusted, "untrusted", "no trusted root of its issuer's name is at hand")
    root = roots[0]
    walk.check_authority(root, ROOT, below=1)
    walk.check_signed_pss_sha384(root, root, ROOT)
    walk.check_validity(root, now, ROOT)
    walk.check_revocation((), root, (crl,), now, role=CRL)
    return root


def _said(leaf: Leaf) -> tuple[object, ...]:
    return (leaf.kind, leaf.product, leaf.tcb, leaf.hardware_id)


def _signers(
    certificate: Certificate,
    issuers: Sequence[Certificate],
    role: Role,
    issuer_role: Role,
    failures: list[EndorsementError],
) -> Iterator[Certificate]:
    """Those of ``issuers``, which have its issuer's name, that signed ``certificate`` and are sound authorities."""
    signed = False
    for issuer in issuers:
        try:
            walk.check_rsa_4096(issuer, issuer_role)
            if not walk.is_signed_pss_sha384(certificate, issuer):
                continue
            signed = True
            walk.check_authority(issuer, issuer_role, below=1 if issuer_role is ROOT else 0)
            walk.check_critical(issuer, issuer_role, known=_CRITICAL)
            walk.check_pss_sha384(issuer, issuer_role)
            if issuer_role is ROOT and issuer.digest not in ROOT_CERTIFICATES:
                walk.check_signed_pss_sha384(issuer, issuer, ROOT)
        except EndorsementError as error:
            failures.append(error)
            continue
        yield issuer
    if not signed:
        failures.append(role.error(EndorsementUntrusted, "sig", "its signature does not verify under its issuer's key"))
