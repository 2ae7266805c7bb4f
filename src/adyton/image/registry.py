"""A client of OCI distribution 1.1: manifests and blobs, read and written, with authentication and patience.

Every manifest is checked against its digest before it is returned; the digest that a registry states is never believed.
Blobs are streamed unchecked (``source``). Connections that break are taken up where they broke; ``429`` and ``5xx`` are
tried again after what ``Retry-After`` asks for, within bounds. Mirrors are not used.
"""

from __future__ import annotations

import email.utils
import hashlib
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from adyton.errors import AdytonError, DigestMismatch, NotFound, Unavailable
from adyton.image import media_types
from adyton.image.manifest import MAX_MANIFEST
from adyton.image.reference import ImageReference
from adyton.image.registry_auth import Authorizer, Credentials, refused
from adyton.image.registry_blob import RegistryBlob
from adyton.image.registry_http import Http, Origin, Reply, TransportOptions, safe_url
from adyton.image.registry_options import RegistryOptions
from adyton.image.registry_upload import RegistryUpload
from adyton.image.source import RawManifest
from adyton.rats.types import Digest
from adyton.wire import strict_json

ATTEMPTS = 5
MAX_WAIT = 60.0
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_MAX_ERROR = 16 * 1024
_ACCEPT = ", ".join(sorted(media_types.MANIFESTS | media_types.INDEXES))


class Registry:
    """Registries under one set of options. Safe to use from several threads; ``close`` lets go of connections."""

    def __init__(self, options: RegistryOptions | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        options = options or RegistryOptions()
        self.http = Http(
            TransportOptions(
                plain_http=options.plain_http, unverified_tls=options.unverified_tls, ca_pem=options.ca_pem
            )
        )
        self._authorizer = Authorizer(self.http, Credentials.parse(options.auth_json))
        self.sleep = sleep

    def close(self) -> None:
        """Close idle connections."""
        self.http.close()

    def resolve(self, reference: ImageReference) -> RawManifest:
        """The manifest or index that ``reference`` names, with its digest; ``DigestMismatch`` if it is another."""
        reply = self.call(
            reference, "GET", f"/manifests/{reference.locator}", headers={"Accept": _ACCEPT}, accept=frozenset({200})
        )
        stated, media_type = reply.header("Docker-Content-Digest"), reply.header("Content-Type")
        raw = reply.small(MAX_MANIFEST)
        digest = reference.digest
        if digest is None:
            digest = Digest.of(raw)
        # A registry that contradicts itself is refused too: some proxy in between answers for another image.
        if not digest.matches(raw) or (stated is not None and stated not in {str(digest), str(Digest.of(raw))}):
            raise DigestMismatch(
                "the registry sent a manifest that is not what its digest says",
                code="manifest_mismatch",
                field="digest",
                expected=str(reference.digest or stated),
                got=f"sha256:{hashlib.sha256(raw).hexdigest()}",
                spec="OCI distribution-spec, pulling manifests",
            )
        return RawManifest(digest, media_type.partition(";")[0].strip() if media_type else None, raw)

    def has_manifest(self, reference: ImageReference) -> bool:
        """Whether the name exists there."""
        return self._exists(reference, f"/manifests/{reference.locator}", {"Accept": _ACCEPT})

    def has_blob(self, reference: ImageReference, digest: Digest) -> bool:
        """Whether the repository holds the blob."""
        return self._exists(reference, f"/blobs/{digest}", {})

    def open_blob(self, reference: ImageReference, digest: Digest, offset: int = 0) -> RegistryBlob:
        """The blob from byte ``offset``, taken up again where a connection breaks. Unchecked."""

        def connect(start: int) -> Reply:
            headers = {"Range": f"bytes={start}-"} if start else {}
            accept = frozenset({200, 206, 416}) if start else frozenset({200})
            return self.call(reference, "GET", f"/blobs/{digest}", headers=headers, accept=accept)

        return RegistryBlob(connect, offset, self.sleep)

    def start_upload(self, reference: ImageReference) -> RegistryUpload:
        """A new blob in the repository; nothing is visible before its ``commit``."""
        return RegistryUpload(self, reference)

    def mount(self, reference: ImageReference, digest: Digest, from_repository: str) -> bool:
        """Make a blob of another repository of the same registry appear here. ``False`` where it will not."""
        query = urlencode({"mount": str(digest), "from": from_repository})
        try:
            reply = self.call(
                reference,
                "POST",
                f"/blobs/uploads/?{query}",
                accept=frozenset({201, 202}),
                also_pull=from_repository,
                push=True,
            )
        except AdytonError:
            return False  # mounting only spares an upload; the upload will say what is wrong
        location = reply.header("Location")
        reply.close()
        if reply.status == 202 and location is not None:  # an upload was begun instead; it is not wanted
            url = self.http.next_url(reply.url, location)
            self.call(reference, "DELETE", url, accept=frozenset(range(200, 500)), push=True).close()
        return reply.status == 201

    def put_manifest(self, reference: ImageReference, raw: bytes, media_type: str) -> Digest:
        """Publish a manifest under the reference's tag or digest; its digest."""
        digest = Digest.of(raw)
        if reference.digest is not None and not reference.digest.matches(raw):
            raise DigestMismatch(
                "the manifest is not the one that the name's digest says",
                code="manifest_mismatch",
                expected=str(reference.digest),
                got=str(digest),
                hint="name the destination with a tag",
            )
        reply = self.call(
            reference,
            "PUT",
            f"/manifests/{reference.locator}",
            headers={"Content-Type": media_type},
            body=raw,
            accept=frozenset({200, 201, 202}),
            push=True,
        )
        stated = reply.header("Docker-Content-Digest")
        reply.close()
        if stated is not None and stated != str(digest):
            raise DigestMismatch(
                "the registry stored the manifest as another one",
                code="manifest_mismatch",
                expected=str(digest),
                got=stated[:200],
            )
        return digest

    def call(
        self,
        reference: ImageReference,
        method: str,
        path: str,
        *,
        accept: frozenset[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | None = None,
        push: bool = False,
        also_pull: str = "",
        attempts: int = ATTEMPTS,
    ) -> Reply:
        """One request, authenticated, patient. ``path`` is below the repository, or a whole URL.

        The answer has a status in ``accept``; any other becomes ``NotFound``, ``NotPermitted`` or ``Unavailable``.
        """
        base = self.http.base(reference.host)
        url = path if "://" in path else f"{base}/v2/{reference.repository}{path}"
        scope = f"repository:{reference.repository}:{'pull,push' if push else 'pull'}"
        if also_pull:
            scope += f" repository:{also_pull}:pull"
        home = Origin.of(safe_url(base))
        asked = False
        failure: Unavailable | None = None
        for attempt in range(attempts):
            if attempt:
                self.sleep(0.2 * 2**attempt)
            failure = None
            while True:
                secret = self._authorizer.header(base, scope) if Origin.of(safe_url(url)) == home else {}
                try:
                    if method in {"GET", "HEAD"}:
                        reply = self.http.follow(method, url, headers or {}, secret)
                    else:
                        reply = self.http.request(method, url, {**(headers or {}), **secret}, body)
                except Unavailable as error:
                    failure = error
                    break
                if reply.status in accept:
                    return reply
                if reply.status == 401 and not asked and Origin.of(safe_url(reply.url)) == home:
                    asked = True
                    self._authorizer.forget(base, scope)
                    _text(reply)
                    self._authorizer.answer(reply, scope, reference.registry, reference.repository)
                    continue
                break
            if failure is not None:
                if failure.code not in {"registry_unreachable", "registry_broken"}:
                    raise failure
                continue
            if reply.status in _AGAIN and attempt + 1 < attempts:
                wait = _retry_after(reply.header("Retry-After"))
                reply.close()
                if wait > MAX_WAIT:
                    raise Unavailable(
                        f"the registry asks to wait {wait:.0f} s", code="registry_busy", hint="try again later"
                    )
                self.sleep(wait)
                continue
            raise self._error(reply, reference)
        assert failure is not None  # noqa: S101 -- every other way out of the loop returned or raised
        raise failure

    def _exists(self, reference: ImageReference, path: str, headers: Mapping[str, str]) -> bool:
        reply = self.call(reference, "HEAD", path, headers=headers, accept=frozenset({200, 404}))
        reply.close()
        return reply.status == 200

    def _error(self, reply: Reply, reference: ImageReference) -> AdytonError:
        if reply.status in {401, 403}:
            reply.close()
            known = self._authorizer.credentials.find(reference.registry, reference.repository)
            return refused(reference.registry, had_credential=known is not None)
        said = _text(reply)
        if reply.status == 404:
            return NotFound(
                f"the registry has no {reference}",
                code="image_not_found",
                field="image",
                got=said or None,
                hint="check name and tag; some registries also answer so where a login is needed",
            )
        return Unavailable(
            f"the registry answered {reply.status}" + (f" ({said})" if said else ""),
            code="registry_refused",
            field="registry",
            got=reply.status,
        )


def _retry_after(text: str | None) -> float:
    if text is None:
        return 0.0
    if text.strip().isascii() and text.strip().isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _text(reply: Reply) -> str:
    """What the registry says about an error, cut, printable; a foreign text, so never more than a hint."""
    try:
        value = strict_json.parse(reply.small(_MAX_ERROR), max_size=_MAX_ERROR)
    except (AdytonError, ValueError):
        return ""
    errors = value.get("errors") if isinstance(value, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    parts = [first.get("code"), first.get("message")] if isinstance(first, dict) else []
    text = ": ".join(part for part in parts if isinstance(part, str))
    return "".join(character if character.isprintable() else "?" for character in text)[:200]
