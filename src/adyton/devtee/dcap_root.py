"""The development root for SGX and TDX on disk, beside the one for SNP: made once, never overwritten.

::

    <directory>/dcap/root/           0700   root pck-ca pck tcb-signing: .key (PKCS#8 PEM, 0600), .pem; platform.json
    <directory>/dcap/endorsements/   0755   root pck-ca tcb-signing (.pem), both CRLs, TCB info and QE identities

``root/`` appears by one rename. ``endorsements/`` is laid out from it again whenever something there is missing, belongs to
another root, or has less than half of its 30 days left.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.devtee.dcap import DcapForge
from adyton.devtee.dcap_certificates import SGX_EXTENSION, Holder, Platform, new_key
from adyton.devtee.keeping import broken, pem_of, read_certificate, read_key, spki, write
from adyton.errors import ConfigError, PlatformError

_NAMES = ("root", "pck-ca", "pck", "tcb-signing")
_LAID_OUT = ("root", "pck-ca", "tcb-signing")
_DOCUMENTS = {
    "sgx": ("sgx-tcb-info.json", "sgx-qe-identity.json"),
    "tdx": ("tdx-tcb-info.json", "tdx-qe-identity.json"),
}
_FRESH = timedelta(days=15)


@dataclass(frozen=True, slots=True)
class DcapRoot:
    """Root → PCK CA → PCK leaf and TCB Signing of one machine. No hardware stands behind it."""

    directory: Path
    forge: DcapForge

    @classmethod
    def create(cls, directory: Path, now: datetime) -> DcapRoot:
        """The root below ``directory``: the one that is there, or a new one.

        ``ConfigError`` when what is there cannot be used, ``PlatformError`` when the directory cannot be written.
        """
        try:
            home = directory / "dcap"
            if not (home / "root").exists():
                home.mkdir(parents=True, exist_ok=True)
                platform = Platform(ppid=secrets.token_bytes(16), instance_id=secrets.token_bytes(16))
                _keep(home, DcapForge.new(now, platform))
            return cls.load(directory, now)
        except OSError as error:
            raise PlatformError(
                f"cannot keep a development root in {directory}: {error.strerror}",
                code="devtee_directory",
                field=str(directory),
                hint="give a directory of your own: ADYTON_HOME=DIR",
            ) from error

    @classmethod
    def load(cls, directory: Path, now: datetime) -> DcapRoot:
        """The root that ``create`` made; its endorsements are laid out again if they are not whole or not fresh."""
        root = directory / "dcap" / "root"
        if not root.exists():
            raise ConfigError(
                "there is no development root for SGX and TDX yet",
                code="devtee_dcap_root_missing",
                field=str(root),
                hint="make one: adyton devtee init",
            )
        platform = _platform(root / "platform.json")
        top, ca, pck, signing = (_holder(root, name, platform) for name in _NAMES)
        try:
            said = pck.certificate.extensions.get_extension_for_oid(SGX_EXTENSION).value.public_bytes()
        except x509.ExtensionNotFound:
            said = b""
        if said != platform.extension():
            raise broken(root / "pck.pem", "it is not for the platform in platform.json")
        loaded = cls(directory, DcapForge(now, top, ca, pck, signing, new_key()))
        if not loaded._laid_out(now):
            loaded.lay_out()
        return loaded

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the root's SubjectPublicKeyInfo, 64 hex digits."""
        return self.forge.fingerprint.hex()

    @property
    def endorsements(self) -> Path:
        """The directory to give to verifiers."""
        return self.directory / "dcap" / "endorsements"

    def lay_out(self) -> None:
        """Write the endorsements as of the forge's time: good for 30 days."""
        place = self.endorsements
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)
        for name, certificate in self._certificates():
            write(place / f"{name}.pem", certificate.public_bytes(Encoding.PEM), 0o644)
        write(place / "root-crl.der", self.forge.crl(self.forge.root), 0o644)
        write(place / "pck-crl.der", self.forge.crl(self.forge.pck_ca), 0o644)
        for tee, names in _DOCUMENTS.items():
            collateral = self.forge.collateral(tee)
            for name, signed in zip(names, (collateral.tcb_info, collateral.qe_identity), strict=True):
                assert signed is not None  # noqa: S101 -- nothing was left out
                write(place / name, signed.document(), 0o644)

    def _certificates(self) -> list[tuple[str, x509.Certificate]]:
        holders = (self.forge.root, self.forge.pck_ca, self.forge.tcb_signing)
        return [(name, holder.certificate) for name, holder in zip(_LAID_OUT, holders, strict=True)]

    def _laid_out(self, now: datetime) -> bool:
        place = self.endorsements
        try:
            for name, certificate in self._certificates():
                if (place / f"{name}.pem").read_bytes() != certificate.public_bytes(Encoding.PEM):
                    return False
            for name in ("root-crl.der", "pck-crl.der"):
                until = x509.load_der_x509_crl((place / name).read_bytes()).next_update_utc
                if until is None or until < now + _FRESH:
                    return False
            for names in _DOCUMENTS.values():
                for name in names:
                    (body,) = (v for v in json.loads((place / name).read_bytes()).values() if isinstance(v, dict))
                    if datetime.fromisoformat(body["nextUpdate"]) < now + _FRESH:
                        return False
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False  # absent or broken
        return True


def _keep(home: Path, forge: DcapForge) -> None:
    """Put keys and certificates into ``root/``, unless another process was faster: then its root counts."""
    fresh = Path(tempfile.mkdtemp(prefix=".root-", dir=home))  # 0700
    try:
        for name, holder in zip(_NAMES, (forge.root, forge.pck_ca, forge.pck, forge.tcb_signing), strict=True):
            write(fresh / f"{name}.key", pem_of(holder.key), 0o600)
            write(fresh / f"{name}.pem", holder.certificate.public_bytes(Encoding.PEM), 0o644)
        facts = {"ppid": forge.platform.ppid.hex(), "instance_id": forge.platform.instance_id.hex()}
        write(fresh / "platform.json", json.dumps(facts).encode(), 0o600)
        fresh.rename(home / "root")
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not (home / "root").exists():
            raise


def _platform(path: Path) -> Platform:
    try:
        facts = json.loads(path.read_bytes())
        ppid, instance = bytes.fromhex(facts["ppid"]), bytes.fromhex(facts["instance_id"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise broken(path, "it is not what it should be") from error
    return replace(Platform(), ppid=ppid, instance_id=instance)


def _holder(root: Path, name: str, platform: Platform) -> Holder:
    certificate = read_certificate(root / f"{name}.pem")
    key = read_key(root / f"{name}.key")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise broken(root / f"{name}.key", "it must be a P-256 key")
    if spki(certificate.public_key()) != spki(key.public_key()):  # type: ignore[arg-type]  # RSA or EC
        raise broken(root / f"{name}.key", f"it is not the key of {name}.pem")
    return Holder(certificate, key, platform)
