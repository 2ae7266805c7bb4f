"""A backup becomes a data directory: all of it and checked, or nothing.

It is unpacked and checked beside its place, under another name, and renamed at the end. A root key is not in it: the
broker that is started on it needs the one that the store had then.
"""

from __future__ import annotations

import errno
import hmac
import os
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from adyton.crypto.merkle import HASH_SIZE
from adyton.errors import AdytonError, ConfigError, DocumentInvalid, LogBroken, PlatformError
from adyton.protocol import backup
from adyton.protocol.backup import Manifest
from adyton.protocol.checkpoint import Checkpoint
from adyton.rats.ports import Progress
from adyton.stores import schema, whole_file
from adyton.stores.audit_reading import AuditReading
from adyton.stores.backup import MANIFEST, CopiedFile, check_file, digest
from adyton.stores.sql import Database
from adyton.stores.sqlite import FILE

_CHUNK = 1 << 20


def restore(
    source: Path,
    directory: Path,
    progress: Progress,
    *,
    checkpoints: Sequence[Checkpoint] = (),
    root_key: Callable[[Database], bytes | None] = lambda _: None,
    unauthenticated: bool = False,
) -> tuple[Manifest, bool]:
    """Restore ``source`` into ``directory``, which is absent or empty; the manifest, and whether its MAC was verified.

    ``checkpoints``: what the operator holds of the logs; a backup that is older or another than they say is refused.
    ``root_key`` finds the root key for the restored store, if it is at hand; then the backup must bear its MAC, unless
    ``unauthenticated``. Errors: ``ConfigError`` (``restore_not_empty``, ``backup_version``), ``DocumentInvalid``
    (``backup_malformed``, ``backup_tampered``, ``backup_unauthenticated``),
    ``LogBroken`` (``backup_too_old``, ``backup_forked``), and what a damaged file raises.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(
            "there is something already: a backup is restored into an empty directory",
            code="restore_not_empty",
            field=str(directory),
            hint="give another --data, or move the old one away; never delete it before the new one works",
        )
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        partial.mkdir(mode=0o700, parents=True)
        manifest = _unpacked(source, partial, progress)
        _check_manifest(manifest, partial / FILE, progress)
        database = CopiedFile(partial / FILE)
        try:
            logs = check_file(database, progress)
            if logs != manifest.logs:
                raise _tampered("logs", "those of the manifest", "others")
            _check_checkpoints(AuditReading(database), checkpoints)
            found = root_key(database)
        finally:
            database.close()
        if found is not None and manifest.mac and not manifest.is_authentic(found):
            raise _tampered("mac", "one made with the root key", "another")
        if found is not None and not manifest.mac and not unauthenticated:
            raise DocumentInvalid(
                "the backup bears no MAC of the root key: it was made without that at hand, or somebody took it away",
                code="backup_unauthenticated",
                field="mac",
                expected="one made with the root key",
                hint="use another copy; or compare it with a --checkpoint, and --unauthenticated-backup-i-accept",
            )
        _forget_intents(partial / FILE)
        whole_file.sync(partial)
        partial.rename(directory)  # onto an empty directory, or onto nothing
        whole_file.sync(directory.parent)
    except OSError as error:
        raise PlatformError(
            f"the backup cannot be restored: {error.strerror}",
            code="restore_failed",
            field=str(error.filename or directory),
            hint="nothing was left behind"
            + ("; a mount point cannot be replaced: give a directory in it" if error.errno == errno.EBUSY else ""),
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest, found is not None and bool(manifest.mac)


def _forget_intents(file: Path) -> None:
    """What was under way when the backup was made has ended where it was made: there it may have its row by now."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name='intents'").fetchone():
            connection.execute("DELETE FROM intents")


def _unpacked(source: Path, partial: Path, progress: Progress) -> Manifest:
    """Copy the store's file; the manifest, parsed."""
    target = partial / FILE
    if source.is_dir():
        with _member(source / MANIFEST) as described:
            manifest = backup.parse(_limited(described.read(backup.MAX_SIZE + 1)))
        with _member(source / FILE) as file:
            _store(file.read, target, manifest.size, progress)
        return manifest
    try:
        with tarfile.open(source, mode="r:") as archive:
            first, second = archive.next(), archive.next()
            if first is None or second is None or archive.next() is not None:
                raise backup_malformed("a manifest and a store", "other members")
            if (first.name, second.name) != (MANIFEST, FILE) or not (first.isreg() and second.isreg()):
                raise backup_malformed(f"{MANIFEST} and {FILE}", f"{first.name[:40]}, {second.name[:40]}")
            said, file_ = archive.extractfile(first), archive.extractfile(second)
            if said is None or file_ is None:
                raise backup_malformed("two files", "none")
            manifest = backup.parse(_limited(said.read(backup.MAX_SIZE + 1)))
            _store(file_.read, target, manifest.size, progress)
            return manifest
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:  # of members that are no archive's
        raise backup_malformed("a directory or a .tar of adyton broker backup", "neither") from error


def _member(path: Path) -> BinaryIO:
    """A regular file of a backup that is a directory, and no link out of it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP}:
            raise backup_malformed(f"{MANIFEST} and {FILE}", f"no such file: {path.name}") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise backup_malformed("regular files", path.name)
    return os.fdopen(descriptor, "rb")


def _limited(raw: bytes) -> bytes:
    if len(raw) > backup.MAX_SIZE:
        raise backup_malformed(f"a manifest of at most {backup.MAX_SIZE} bytes", "more")
    return raw


def _store(read: Callable[[int], bytes], target: Path, size: int, progress: Progress) -> None:
    done = 0
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        while piece := read(_CHUNK):
            done += len(piece)
            if done > size:
                break
            file.write(piece)
            progress.advance("restoring", done, size)
        file.flush()
        os.fsync(file.fileno())
    if done != size:
        raise _tampered("size", size, "more" if done > size else done)


def _check_manifest(manifest: Manifest, file: Path, progress: Progress) -> None:
    if manifest.schema != schema.VERSION:
        raise ConfigError(
            "the backup was made by another version of Adyton",
            code="backup_version",
            field="schema",
            expected=schema.VERSION,
            got=manifest.schema,
            hint=f"restore it with the version that made it ({manifest.version[:40]}), then upgrade",
        )
    got = digest(file, progress)
    if not hmac.compare_digest(got, manifest.sha256):
        raise _tampered("sha256", manifest.sha256, got)


def _check_checkpoints(log: AuditReading, checkpoints: Sequence[Checkpoint]) -> None:
    for one in checkpoints:
        tenant = one.origin.rpartition("/")[2]
        held = log.size(tenant)
        if one.size > held:
            raise LogBroken(
                "the backup is older than the checkpoint: decisions are missing",
                code="backup_too_old",
                field=f"log of {tenant[:80]}",
                expected=f"at least {one.size} rows",
                got=f"{held} rows",
                hint="restore a later backup; if there is none, restore without --checkpoint and keep it as evidence",
            )
        root = log.root(tenant, one.size)
        if len(one.root) != HASH_SIZE or not hmac.compare_digest(root, one.root):
            raise LogBroken(
                "the backup's log is not the one of the checkpoint",
                code="backup_forked",
                field=f"log of {tenant[:80]}",
                expected=one.root,
                got=root,
                hint="keep both as evidence: somebody wrote another history",
            )


def backup_malformed(expected: str, got: str) -> AdytonError:
    """The error of what is no backup at all."""
    return DocumentInvalid(
        "this is no backup of a broker", code="backup_malformed", field="source", expected=expected, got=got
    )


def _tampered(field: str, expected: object, got: object) -> DocumentInvalid:
    return DocumentInvalid(
        "the backup is not what was written",
        code="backup_tampered",
        field=field,
        expected=expected,
        got=got,
        hint="use another copy; keep this one as evidence",
    )
