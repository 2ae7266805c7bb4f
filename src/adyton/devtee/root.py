"""The development root on disk: made once, never overwritten; keys for their owner, endorsements for everybody.

::

    <directory>/root/           0700   ark.key ask.key vcek.key (PKCS#8 PEM, 0600), ark.pem ask.pem vcek.pem
    <directory>/endorsements/   0755   ark.pem ask.pem vcek.pem crl.der: what a verifier is given

``root/`` appears by one rename, so that it is whole or absent; ``endorsements/`` is laid out from it again whenever
something there is missing or differs. The chip's id (CHIP_ID, 64 random bytes) is drawn once, with the VCEK that names it.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.devtee.certificates import (
    Authority,
    Levels,
    Signer,
    make_ark,
    make_crl,
    make_intermediate,
    make_leaf,
    new_key,
)
from adyton.devtee.keeping import broken, pem_of, read_certificate, read_key, spki, write
from adyton.errors import ConfigError, PlatformError
from adyton.rats.ports import Progress

PRODUCT = "Genoa"
LEVELS = Levels()
_HWID = x509.ObjectIdentifier("1.3.6.1.4.1.3704.1.4")
_NAMES = ("ark", "ask", "vcek")


@dataclass(frozen=True, slots=True)
class DevelopmentRoot:
    """ARK → ASK → VCEK of one machine. No hardware stands behind it."""

    directory: Path
    ark: Authority
    ask: Authority
    signer: Signer

    @classmethod
    def create(cls, directory: Path, now: datetime, progress: Progress | None = None) -> DevelopmentRoot:
        """The root in ``directory``: the one that is there, or a new one.

        ``ConfigError`` when what is there cannot be used, ``PlatformError`` when the directory cannot be written.
        """
        try:
            if (directory / "root").exists():
                return cls.load(directory, now)
            directory.mkdir(parents=True, exist_ok=True)
            made = cls._make(directory, now, progress or _Silent())
            if not made.write():
                return cls.load(directory, now)  # another process was faster, and its root counts
            made.lay_out(now)
        except OSError as error:
            raise PlatformError(
                f"cannot keep a development root in {directory}: {error.strerror}",
                code="devtee_directory",
                field=str(directory),
                hint="give a directory of your own: ADYTON_HOME=DIR",
            ) from error
        return made

    @classmethod
    def load(cls, directory: Path, now: datetime) -> DevelopmentRoot:
        """The root that ``create`` made; its endorsements are laid out again if they are not whole."""
        root = directory / "root"
        if not root.exists():
            raise ConfigError(
                "there is no development root yet",
                code="devtee_root_missing",
                field=str(root),
                hint="make one: adyton devtee init",
            )
        ark, ask, vcek = (read_certificate(root / f"{name}.pem") for name in _NAMES)
        ark_key, ask_key, vcek_key = (read_key(root / f"{name}.key") for name in _NAMES)
        try:
            chip_id = vcek.extensions.get_extension_for_oid(_HWID).value.public_bytes()
        except x509.ExtensionNotFound as error:
            raise broken(root / "vcek.pem", "it names no chip") from error
        if not isinstance(ark_key, rsa.RSAPrivateKey) or not isinstance(ask_key, rsa.RSAPrivateKey):
            raise broken(root, "ark.key and ask.key must be RSA keys")
        if not isinstance(vcek_key, ec.EllipticCurvePrivateKey):
            raise broken(root / "vcek.key", "it must be a P-384 key")
        for name, certificate, key in (("ark", ark, ark_key), ("ask", ask, ask_key), ("vcek", vcek, vcek_key)):
            if spki(certificate.public_key()) != spki(key.public_key()):  # type: ignore[arg-type]  # RSA or EC
                raise broken(root / f"{name}.key", f"it is not the key of {name}.pem")
        signer = Signer(vcek, vcek_key, "VCEK", PRODUCT, LEVELS, chip_id)
        loaded = cls(directory, Authority(ark, ark_key), Authority(ask, ask_key), signer)
        if not loaded._laid_out():
            loaded.lay_out(now)
        return loaded

    @classmethod
    def _make(cls, directory: Path, now: datetime, progress: Progress) -> DevelopmentRoot:
        progress.advance("development root: two RSA-4096 keys", 0, 2)
        ark = make_ark(PRODUCT, now, key=new_key())
        progress.advance("development root: two RSA-4096 keys", 1, 2)
        ask = make_intermediate(ark, PRODUCT, now, key=new_key())
        progress.advance("development root: two RSA-4096 keys", 2, 2)
        return cls(directory, ark, ask, make_leaf(ask, PRODUCT, LEVELS, now, chip_id=secrets.token_bytes(64)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the ARK's SubjectPublicKeyInfo, 64 hex digits: what ``--trust-dev-root`` takes."""
        digest = Hash(SHA256())
        digest.update(spki(self.ark.key.public_key()))
        return digest.finalize().hex()

    @property
    def chip_id(self) -> bytes:
        """CHIP_ID of this machine's reports, 64 bytes."""
        return self.signer.chip_id

    @property
    def endorsements(self) -> Path:
        """The directory to give to verifiers."""
        return self.directory / "endorsements"

    @property
    def certificates(self) -> tuple[tuple[str, bytes], ...]:
        """(type, DER) of VCEK, ASK and ARK, as CoCo's evidence lists them."""
        return (
            ("VCEK", self.signer.certificate.public_bytes(Encoding.DER)),
            ("ASK", self.ask.certificate.public_bytes(Encoding.DER)),
            ("ARK", self.ark.certificate.public_bytes(Encoding.DER)),
        )

    def write(self) -> bool:
        """Put keys and certificates into ``root/``; false if there is a root already, which stays as it is."""
        fresh = Path(tempfile.mkdtemp(prefix=".root-", dir=self.directory))  # 0700
        try:
            for name, key in (("ark", self.ark.key), ("ask", self.ask.key), ("vcek", self.signer.key)):
                write(fresh / f"{name}.key", pem_of(key), 0o600)
            for name, certificate in self._named():
                write(fresh / f"{name}.pem", certificate.public_bytes(Encoding.PEM), 0o644)
            fresh.rename(self.directory / "root")
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if not (self.directory / "root").exists():
                raise
            return False
        return True

    def lay_out(self, now: datetime) -> None:
        """Write the endorsements, with a CRL of ``now``: good for 45 days, its number one more than the last one's."""
        self.endorsements.mkdir(parents=True, exist_ok=True)
        self.endorsements.chmod(0o755)
        for name, certificate in self._named():
            write(self.endorsements / f"{name}.pem", certificate.public_bytes(Encoding.PEM), 0o644)
        self.renew_crl(now)

    def renew_crl(self, now: datetime) -> None:
        """Sign a CRL of ``now`` and put it in the old one's place."""
        path = self.endorsements / "crl.der"
        crl = make_crl(self.ark, now, number=_crl_number(path) + 1)
        write(path, crl.public_bytes(Encoding.DER), 0o644)

    def _named(self) -> tuple[tuple[str, x509.Certificate], ...]:
        return (("ark", self.ark.certificate), ("ask", self.ask.certificate), ("vcek", self.signer.certificate))

    def _laid_out(self) -> bool:
        def same(path: Path, content: bytes) -> bool:
            return path.is_file() and path.read_bytes() == content

        whole = all(same(self.endorsements / f"{n}.pem", c.public_bytes(Encoding.PEM)) for n, c in self._named())
        return whole and _crl_number(self.endorsements / "crl.der") > 0


class _Silent:
    def advance(self, label: str, done: int, total: int | None) -> None:
        """Nobody looks."""


def _crl_number(path: Path) -> int:
    try:
        crl = x509.load_der_x509_crl(path.read_bytes())
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (OSError, ValueError, x509.ExtensionNotFound):
        return 0  # absent or broken: a new series begins
