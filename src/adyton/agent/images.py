"""The workload's image: pulled by the digest in the document, opened with keys that the document or its owner gives.

What a plain image in the store does not need is not imported: no registry, no cryptography, no broker. Keys come from
the operator's ``--decryption-key`` (an owner running an own image) or, by attestation, from the document's broker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from adyton.agent.channel import Channel
from adyton.agent.life import Layout, Phases
from adyton.agent.rootfs import Layers
from adyton.agent.supervisor import stop_signal
from adyton.errors import ConfigError, NotFound
from adyton.image.pull import pull
from adyton.image.store import Store
from adyton.protocol.devtee import Run, Start
from adyton.protocol.workload import WorkloadDocument
from adyton.rats.types import Digest

if TYPE_CHECKING:
    from adyton.client.handshake import BrokerKeys
    from adyton.image.ocicrypt import ImageKeys
    from adyton.image.source import BlobStream, ImageSource, RawManifest


def obtain(document: WorkloadDocument, start: Start, channel: Channel, layout: Layout, phases: Phases) -> Layers:
    """The image's layers as directories, top first. Plaintext of encrypted layers only below ``layout.private``."""
    keys = AttestedKeys(document, channel, phases)
    source = LateSource(start.run)
    private = layout.private / "image"
    private.mkdir(mode=0o700, exist_ok=True)
    try:
        pulled = pull(
            source, Digest.parse(document.workload.image), Store(layout.store), private, _keys(start.run, keys), phases
        )
    finally:
        source.close()
        keys.close()
    return Layers(pulled.lower_dirs, pulled.encrypted, stop_signal(pulled.config.run.stop_signal))


def _keys(run: Run, source: AttestedKeys) -> ImageKeys:
    from adyton.image.ocicrypt import ImageKeys

    if not run.decryption_keys:
        return ImageKeys(source=source)
    from adyton.image.recipient_keys import load_private_key

    return ImageKeys(tuple(load_private_key(pem.encode()) for pem in run.decryption_keys), source)


class AttestedKeys:
    """A ``KeySource`` that proves itself to the document's broker when the first key is asked for."""

    def __init__(self, document: WorkloadDocument, channel: Channel, phases: Phases) -> None:
        self._document = document
        self._channel = channel
        self._phases = phases
        self._keys: BrokerKeys | None = None
        self._close: Callable[[], None] = lambda: None

    def key(self, uri: str) -> bytes:
        """The key behind ``uri``; ``ConfigError`` if the document names nobody to ask."""
        if self._keys is None:
            self._keys = self._attest(uri)
        return self._keys.key(uri)

    def close(self) -> None:
        """End the session; keys that were given stay given."""
        self._close()

    def _attest(self, uri: str) -> BrokerKeys:
        broker = self._document.workload.broker
        if broker is None:
            raise ConfigError(
                "the image is encrypted, and the workload document names no broker to have its key from",
                code="broker_missing",
                field="broker",
                got=uri,
                hint="adyton run --broker URL --broker-pin PIN, or adyton workload new with the same options",
            )
        from adyton.attesters.devtee import DevTeeAttester
        from adyton.client.address import BrokerAddress
        from adyton.client.handshake import BrokerKeys, Session

        self._phases.enter("attest")
        session = Session(
            BrokerAddress(broker.url, pin=broker.pin), DevTeeAttester(self._channel), init_data=self._document.raw
        )
        self._close = session.close
        return BrokerKeys(session)


class LateSource:
    """An ``ImageSource`` over the registry that the operator named, opened when the store lacks something."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._opened: ImageSource | None = None

    def manifest(self, digest: Digest | None = None) -> RawManifest:
        """As ``ImageSource``."""
        return self._source().manifest(digest)

    def open_blob(self, digest: Digest, offset: int = 0) -> BlobStream:
        """As ``ImageSource``."""
        return self._source().open_blob(digest, offset)

    def close(self) -> None:
        """As ``ImageSource``."""
        if self._opened is not None:
            self._opened.close()

    def _source(self) -> ImageSource:
        if self._opened is None:
            if not self._run.source:
                raise NotFound(
                    "the image is not whole in the store, and it has no registry to be pulled from",
                    code="image_incomplete",
                    hint="run it by its registry name, or import it again",
                )
            from adyton.image.reference import ImageReference
            from adyton.image.registry import Registry
            from adyton.image.registry_image import RegistrySource
            from adyton.image.registry_options import RegistryOptions

            options = RegistryOptions(
                auth_json=self._run.registry_auth,
                plain_http=frozenset(self._run.registry_plain_http),
                ca_pem=self._run.registry_ca,
                unverified_tls=frozenset(self._run.registry_unverified_tls),
            )
            self._opened = RegistrySource(Registry(options), ImageReference.parse(self._run.source))
        return self._opened
