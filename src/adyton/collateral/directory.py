"""Endorsements from files and directories, for whoever keeps them offline.

A file must be endorsements: certificates or CRLs in PEM or DER, a vendor's document (signed JSON, a reference manifest,
an OCSP answer, Hygon's certificates), or a bundle of Adyton's (``bundle``). A directory is searched through, with everything below it, for names that end in one
of ``SUFFIXES``; other files in it are left alone, and so are names that begin with a dot. Content decides what a file is,
never its name.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from adyton.collateral import bundle
from adyton.crypto.x509 import MAX_SIZE, Certificate, Crl, EndorsementSet
from adyton.errors import ConfigError, EndorsementMalformed

SUFFIXES = frozenset({".pem", ".crt", ".cer", ".cert", ".der", ".crl", ".json", ".xml", ".swidtag", ".tar"})
_ARCHIVE = ".tar"
MAX_FILES = 20_000


def load(paths: Collection[Path]) -> EndorsementSet:
    """Read all of ``paths``. ``ConfigError`` if one cannot be read, ``EndorsementMalformed`` if it is not endorsements."""
    certificates: list[Certificate] = []
    crls: list[Crl] = []
    documents: list[bytes] = []
    named = set(paths)
    for path in _files(paths):
        try:
            content = _read(path)
            if path.suffix.lower() == _ARCHIVE and path not in named and not bundle.is_bundle(content):
                continue  # somebody's archive, which happens to lie there
            part = bundle.endorsements(content) if bundle.is_bundle(content) else EndorsementSet.parse([content])
        except EndorsementMalformed as error:
            raise EndorsementMalformed(
                f"{path}: {error.message}",
                code=error.code,
                field=str(path),
                expected=error.expected,
                got=error.got,
                spec=error.spec,
                hint=error.hint,
            ) from error
        certificates += part.certificates
        crls += part.crls
        documents += part.documents
    return EndorsementSet(certificates, crls, documents)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    count = 0
    for path in paths:
        for file in _search(path) if path.is_dir() else (path,):
            count += 1
            if count > MAX_FILES:
                raise ConfigError(
                    f"more than {MAX_FILES} files of endorsements", code="too_many_files", field=str(path)
                )
            yield file


def _search(directory: Path) -> list[Path]:
    found = []

    def unreadable(error: OSError) -> None:
        raise _unreadable(Path(error.filename or directory), error)

    for folder, inner, names in os.walk(directory, onerror=unreadable):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [
            Path(folder) / name
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return found


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # a device or pipe would block, or never end
            raise FileNotFoundError(2, "no such file")
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
            return content + file.read(bundle.MAX_SIZE) if bundle.is_bundle(content) else content
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read: {error.strerror or 'unknown reason'}", code="endorsements_unreadable", field=str(path)
    )
