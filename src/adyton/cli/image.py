"""``adyton image``: encrypt, inspect and decrypt images. Keys are read or made here and never printed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.ending import put_away_when_ended
from adyton.cli.files import read, read_text
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.cli.registry_access import (
    REGISTRY_OPTIONS,
    access,
    chosen_platform,
    platform_option,
    registry_options,
)
from adyton.cli.signers import fingerprints, signer_option
from adyton.errors import AdytonError, ConfigError, Conflict, NotFound

if TYPE_CHECKING:
    from adyton.client.admin import Admin
    from adyton.image.encrypt import Recipients
    from adyton.image.jwe_recipient import PrivateKey, PublicKey
    from adyton.protocol.release import Binding
    from adyton.protocol.resource import ResourcePath
    from adyton.rats.types import Digest, JsonValue

_File = click.Path(exists=True, dir_okay=False, path_type=Path)
_BROKER = ("broker", "admin_token_file", "admin_key", "broker_pin", "tenant", "insecure_http", "unattested")


@click.group(cls=Noun)
def image() -> None:
    """Encrypt, decrypt and inspect images.

    SRC and DST are written as for skopeo: docker://host/name:tag (or just the name), oci:PATH[:TAG],
    oci-archive:PATH[:TAG], dir:PATH.
    """


@image.command()
@click.argument("src")
@click.argument("dst")
@click.option("--key", "key", metavar="URI", help="kbs:///repository/type/tag: where a broker holds the key.")
@click.option("--key-file", type=_File, help="The 32 bytes of that key, made by you; without --broker nobody is told.")
@click.option(
    "--recipient", "recipients", multiple=True, metavar="jwe:PEM", help="Public key of somebody who may open it."
)
@click.option("--image-binding", is_flag=True, help="Bind the key to this image, also beside the bindings below.")
@click.option("--workload", "workloads", multiple=True, metavar="DIGEST", help="Bind the key to a workload document.")
@signer_option
@click.option("--policy", type=_File, help="Bind it to Rego: policy.allow.")
@click.option("--any-workload-i-accept", is_flag=True, help="Bind it to whatever the attestation policy accepts.")
@click.option("--replace-key", is_flag=True, help="Replace what the broker holds at URI; images under it are lost.")
@platform_option
@broker_options
@registry_options
@json_option
def encrypt(src: str, dst: str, as_json: bool, **given: Any) -> None:
    """Encrypt every layer of SRC into DST, for a broker's key (--key), for people (--recipient), or for both.

    With --key a key of 32 random bytes is made and registered with the broker, bound to the encrypted image unless
    another binding is given. It is registered after the layers were written and before the manifest: where registering
    fails, DST does not come to exist. The image's configuration is not encrypted.
    """
    from adyton.cli.bars import Bars
    from adyton.image.encrypt import encrypt as run
    from adyton.image.reference import ImageReference
    from adyton.image.transports import open_sink, open_source

    source_name, target_name = ImageReference.parse(src), ImageReference.parse(dst)
    path, to_register, recipients = _recipients(given)
    platform = chosen_platform(given["platform"])
    options = access((source_name, target_name), **{name: given[name] for name in REGISTRY_OPTIONS})
    put_away_when_ended()
    with contextlib.ExitStack() as stack:
        registration = None
        if path is not None and to_register:
            admin = stack.enter_context(open_admin(**{name: given[name] for name in _BROKER}))
            registration = _Registration(admin, path, recipients, given)
            registration.check()
        source = stack.enter_context(contextlib.closing(open_source(source_name, options)))
        sink = stack.enter_context(contextlib.closing(open_sink(target_name, options, source_name)))
        bars = stack.enter_context(Bars(quiet=as_json))
        try:
            result = run(source, sink, recipients, platform=platform, register=registration, progress=bars)
        except AdytonError as error:
            if registration is not None and registration.done:
                error.hint = f"the key is registered at {registration.path.uri}; repeat with --replace-key"
            raise
    if source_name.shares_blobs(target_name):
        say(
            "note: SRC and DST keep their layers in one place, where the plain ones of SRC stay: do not hand it on whole"
        )
    binding = registration.binding if registration is not None else None
    answer: dict[str, JsonValue] = {
        "image": str(target_name),
        "digest": str(result.digest),
        "layers": len(result.layers),
        "key": path.uri if path is not None else None,
        "registered": registration is not None,
        "binding": _plain(binding),
        "recipients": len(recipients.public_keys),
        "converted": result.converted,
    }
    if as_json:
        print_json(answer)
        return
    if result.converted:
        say("note: SRC is a Docker schema 2 image; DST is an OCI image, which alone knows encrypted layers")
    print_table(("what", "value"), [(name, _short(value)) for name, value in answer.items()])


@image.command()
@click.argument("name")
@platform_option
@registry_options
@json_option
def inspect(name: str, platform: str | None, as_json: bool, **given: Any) -> None:
    """Show what NAME is: platform, layers, which of them are encrypted, and for whom."""
    from adyton.image import manifest as manifests
    from adyton.image.describe import describe, describe_index
    from adyton.image.manifest import Index
    from adyton.image.reference import ImageReference
    from adyton.image.source import image_manifest, read_blob
    from adyton.image.transports import open_source

    reference = ImageReference.parse(name)
    with contextlib.closing(open_source(reference, access((reference,), **given))) as source:
        top = source.manifest().parse()
        chosen = image_manifest(source, chosen_platform(platform))
        raw = read_blob(source, chosen.config, manifests.MAX_CONFIG)
    value: dict[str, JsonValue] = {
        "image": str(reference),
        **describe(chosen, manifests.parse_config(raw, chosen)),
        "index": describe_index(top) if isinstance(top, Index) else None,
    }
    if as_json:
        print_json(value)
    else:
        _print_image(value)


@image.command()
@click.argument("src")
@click.argument("dst")
@click.option("--decryption-key", "pems", multiple=True, type=_File, help="A recipient's private key, PEM (PKCS#8).")
@click.option("--key-file", type=_File, help="The 32 bytes that a broker would give for the image's key.")
@click.option("--key", metavar="URI", help="Use the key file for this URI alone [default: for any].")
@click.option("--accept-unauthenticated-wrap", is_flag=True, help="Also open keys wrapped with A256CTR.")
@platform_option
@registry_options
@json_option
def decrypt(src: str, dst: str, as_json: bool, **given: Any) -> None:
    """Decrypt SRC into DST with keys that you hold. DST is then a plain image."""
    from adyton.cli.bars import Bars
    from adyton.image.decrypt import decrypt as run
    from adyton.image.ocicrypt import ImageKeys
    from adyton.image.reference import ImageReference
    from adyton.image.transports import open_sink, open_source

    if not given["pems"] and given["key_file"] is None:
        raise click.UsageError("give --decryption-key or --key-file; a broker gives keys to attested workloads alone")
    source_name, target_name = ImageReference.parse(src), ImageReference.parse(dst)
    keys = ImageKeys(
        private_keys=tuple(_private_key(path) for path in given["pems"]),
        source=_KeyFile(_key_file(given["key_file"]), given["key"]) if given["key_file"] is not None else None,
        unauthenticated_wrap_accepted=given["accept_unauthenticated_wrap"],
    )
    platform = chosen_platform(given["platform"])
    options = access((source_name, target_name), **{name: given[name] for name in REGISTRY_OPTIONS})
    put_away_when_ended()
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(open_source(source_name, options)))
        sink = stack.enter_context(contextlib.closing(open_sink(target_name, options, source_name)))
        bars = stack.enter_context(Bars(quiet=as_json))
        result = run(source, sink, keys, platform=platform, progress=bars)
    answer: dict[str, JsonValue] = {
        "image": str(target_name),
        "digest": str(result.digest),
        "layers": len(result.layers),
        "converted": result.converted,
    }
    if as_json:
        print_json(answer)
    else:
        print_table(("what", "value"), [(name, _short(value)) for name, value in answer.items()])


class _Registration:
    """Registering the image's key: called with the new manifest's digest, between the blobs and the manifest."""

    def __init__(self, admin: Admin, path: ResourcePath, recipients: Recipients, given: dict[str, Any]) -> None:
        self._admin = admin
        self.path = path
        self._key = recipients.broker_keys[0].key
        self._given = given
        self.binding: Binding | None = None
        self.done = False
        self._bind(None)  # a binding that cannot be is said before any work

    def check(self) -> None:
        """Nothing may be at the URI yet: replacing a key would lock every image under it."""
        if self._given["replace_key"]:
            self._admin.about()
            return
        with contextlib.suppress(NotFound):
            self._admin.show_resource(self.path)
            raise Conflict(
                f"the broker holds something at {self.path.uri} already",
                code="key_exists",
                field="key",
                got=self.path.uri,
                hint="choose another URI, or --replace-key if no image needs the old key any more",
            )

    def __call__(self, digest: Digest) -> None:
        self.binding = self._bind(digest)
        self._admin.set_resource(self.path, self._key, self.binding)
        self.done = True

    def _bind(self, digest: Digest | None) -> Binding:
        from adyton.protocol import release

        given = self._given
        policy = read_text(given["policy"]) if given["policy"] is not None else None
        others = bool(given["workloads"] or given["signers"] or policy or given["any_workload_i_accept"])
        images = [str(digest)] if digest is not None and (given["image_binding"] or not others) else []
        return release.written(
            workloads=given["workloads"],
            images=images,
            signers=fingerprints(given["signers"]),
            policy=policy,
            any_workload_i_accept=given["any_workload_i_accept"],
        )


class _KeyFile:
    """A ``rats.ports.KeySource`` over one key of the owner's own."""

    def __init__(self, key: bytes, uri: str | None) -> None:
        from adyton.protocol.resource import ResourcePath

        self._key = key
        self._path = ResourcePath.parse(uri) if uri is not None else None

    def key(self, uri: str) -> bytes:
        """The key, for the URI that it is for."""
        from adyton.protocol.resource import ResourcePath

        if self._path is not None and ResourcePath.parse(uri) != self._path:
            raise NotFound(
                "the key file is for another key than the image needs",
                code="key_other",
                field="key",
                expected=uri[:200],
                got=self._path.uri,
            )
        return self._key


def _recipients(given: dict[str, Any]) -> tuple[ResourcePath | None, bool, Recipients]:
    """The broker's key's path, whether a broker is to be told of it, and everybody who can open the image."""
    import os

    from adyton.image.encrypt import BrokerKey, Recipients
    from adyton.protocol.resource import ResourcePath

    if given["key"] is None and not given["recipients"]:
        raise click.UsageError("give --key, --recipient or both: an image that nobody can open is lost")
    bindings = [given[name] for name in ("workloads", "signers", "policy", "any_workload_i_accept", "image_binding")]
    if given["key"] is None and (given["key_file"] is not None or given["broker"] is not None or any(bindings)):
        raise click.UsageError("--key-file, --broker and bindings belong to a --key")
    to_register = given["key_file"] is None or given["broker"] is not None
    if not to_register and any(bindings):
        raise click.UsageError("a binding is registered with a broker: give --broker too")
    public_keys = tuple(_recipient(text) for text in given["recipients"])
    if given["key"] is None:
        return None, False, Recipients(public_keys=public_keys)
    path = ResourcePath.parse(given["key"])
    key = os.urandom(32) if given["key_file"] is None else _key_file(given["key_file"])
    return path, to_register, Recipients((BrokerKey(path, key),), public_keys)


def _recipient(text: str) -> PublicKey:
    from adyton.image.recipient_keys import load_public_key

    scheme, colon, path = text.partition(":")
    if scheme != "jwe" or not colon:
        raise click.UsageError("a recipient is jwe:PEM, the path of a public key or certificate")
    try:
        return load_public_key(read(Path(path)))
    except ConfigError as error:
        error.field = path
        raise


def _private_key(path: Path) -> PrivateKey:
    from adyton.image.recipient_keys import load_private_key

    try:
        return load_private_key(read(path))
    except ConfigError as error:
        error.field = str(path)
        raise


def _key_file(path: Path) -> bytes:
    with path.open("rb") as file:
        key = file.read(33)
    if len(key) != 32:
        raise ConfigError(
            "a key file holds exactly 32 bytes",
            code="key_file",
            field=str(path),
            expected="32 bytes",
            got=f"{len(key)} bytes" if len(key) < 33 else "more",
            hint="make one: head -c 32 /dev/urandom > FILE",
        )
    return key


def _plain(binding: Binding | None) -> JsonValue:
    from msgspec import to_builtins

    value: JsonValue = None if binding is None else to_builtins(binding)
    return value


def _print_image(value: dict[str, Any]) -> None:
    config = value["config"]
    rows = [("image", value["image"]), ("digest", value["digest"]), ("platform", value["platform"])]
    rows.append(("layers", f"{len(value['layers'])}, encrypted: {value['encrypted']}"))
    rows += [(name, _short(config[name])) for name in ("entrypoint", "cmd", "user", "working_dir", "exposed_ports")]
    if value["index"] is not None:
        rows.append(("index of", ", ".join(str(entry["platform"]) for entry in value["index"]["manifests"])))
    print_table(("what", "value"), [(name, _printable(text)) for name, text in rows])
    click.echo()
    print_table(
        ("layer", "bytes", "format", "encrypted", "for"),
        [
            (
                layer["digest"],
                layer["size"],
                layer["compression"],
                "encrypted" if layer["encrypted"] else "plain",
                _printable("; ".join(_recipient_text(entry) for entry in layer["recipients"])),
            )
            for layer in value["layers"]
        ],
    )


def _recipient_text(entry: dict[str, Any]) -> str:
    return " ".join(str(entry[name]) for name in ("scheme", "key", "wrap") if name in entry)


def _short(value: object) -> str:
    if value is None or value in ([], ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(member)}" for name, member in value.items())
    return str(value)


def _printable(text: str) -> str:
    """A stranger's text for a terminal: what could move its cursor becomes a question mark."""
    return "".join(character if character.isprintable() else "?" for character in text) or "-"
