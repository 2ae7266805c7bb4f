"""Encryption annotations from a stranger: an error of ours, or the very key that the owner wrapped."""

from __future__ import annotations

import contextlib
import json
import sys

import atheris

with atheris.instrument_imports():
    from cryptography.hazmat.primitives.asymmetric import ec

    from adyton.errors import AdytonError
    from adyton.image import describe, jwe_recipient, keyprovider, ocicrypt
    from adyton.image.manifest import Descriptor
    from adyton.protocol.resource import ResourcePath
    from adyton.rats.types import Digest
    from adyton.wire import b64

KEY = ec.derive_private_key(7, ec.SECP256R1())
KEK = bytes(range(32))
OPTIONS = ocicrypt.private_options(b"k" * 32, b"n" * 16, Digest.of(b""))
PACKET = keyprovider.wrap(OPTIONS, ResourcePath.parse("kbs:///a/b/c"), KEK)
JWE = jwe_recipient.wrap(OPTIONS, [KEY.public_key()])
TYPE = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"


class Source:
    """A key source with one key."""

    def key(self, uri: str) -> bytes:
        """The key."""
        return KEK


def altered(original: bytes, provider: atheris.FuzzedDataProvider) -> bytes:
    data = bytearray(original)
    for _ in range(provider.ConsumeIntInRange(0, 4)):
        position = provider.ConsumeIntInRange(0, len(data) - 1)
        data[position : position + provider.ConsumeIntInRange(0, 8)] = provider.ConsumeBytes(8)
        data = data or bytearray(b"{")
    return bytes(data)


def odd_header(provider: atheris.FuzzedDataProvider) -> bytes:
    """The JWE with a value of another type somewhere in its protected header, where bytes are hidden in base64."""
    document = json.loads(JWE)
    header = json.loads(b64.decode_url(document["protected"]))
    place = provider.PickValueInList([header, header["epk"], document])
    place[provider.PickValueInList(sorted(place))] = provider.PickValueInList(
        [[], {}, None, 1, 1e9, True, "", "x", [{}]]
    )
    if place is not document:
        document["protected"] = b64.encode_url(json.dumps(header).encode())
    return json.dumps(document).encode()


def one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    choice = provider.ConsumeIntInRange(0, 4)
    annotations = {ocicrypt.PUBLIC_OPTIONS: ocicrypt.public_options(bytes(32))}
    if choice == 0:
        annotations[ocicrypt.KEYS + "provider.attestation-agent"] = b64.encode(altered(PACKET, provider))
    elif choice == 1:
        annotations[ocicrypt.KEYS + "jwe"] = b64.encode(altered(JWE, provider))
    elif choice == 4:
        annotations[ocicrypt.KEYS + "jwe"] = b64.encode(odd_header(provider))
    elif choice == 2:
        annotations[ocicrypt.KEYS + "jwe"] = provider.ConsumeUnicode(200)
    else:
        annotations[ocicrypt.PUBLIC_OPTIONS] = b64.encode(provider.ConsumeBytes(200))
        annotations[ocicrypt.KEYS + "provider.attestation-agent"] = b64.encode(PACKET)
    descriptor = Descriptor(TYPE, Digest.of(b""), 0, annotations)
    with contextlib.suppress(AdytonError):
        describe.recipients(descriptor)
    try:
        key = ocicrypt.unwrap(descriptor, ocicrypt.ImageKeys((KEY,), Source()))
    except AdytonError:
        return
    assert key.symkey == b"k" * 32
    assert key.nonce == b"n" * 16


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
