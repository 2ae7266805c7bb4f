"""The options that ``run`` and ``workload new`` share: where an image comes from, and what its document says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli.files import read, read_text
from adyton.cli.output import say
from adyton.cli.registry_access import REGISTRY_OPTIONS, access, chosen_platform, registry_options
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.image.manifest import ImageConfig
    from adyton.image.registry_options import RegistryOptions
    from adyton.protocol.workload import Broker
    from adyton.runtime.options import RunOptions


def image_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where images come from: the options that ``run`` and ``workload new`` share."""
    choice = click.Choice(["missing", "always", "never"])
    pull = click.option("--pull", type=choice, default="missing", show_default=True, help="When to ask the registry.")
    return registry_options(pull(command))


def document_options(command: Callable[..., None]) -> Callable[..., None]:
    """What a workload document says: the options that ``run`` and ``workload new`` share."""
    for option in reversed(
        (
            click.option(
                "-v", "--volume", "volumes", multiple=True, metavar="SRC:DST[:ro]", help="A directory or volume."
            ),
            click.option("--tmpfs", multiple=True, metavar="DST", help="Private memory at DST."),
            click.option("-w", "--workdir", help="Working directory."),
            click.option("-u", "--user", metavar="USER[:GROUP]", help="Names are the image's."),
            click.option("--entrypoint", metavar="WORD|JSON", help="Instead of the image's."),
            click.option(
                "--network",
                type=click.Choice(["none", "bridge", "host"]),
                help="none and bridge: loopback only, bridge with -p; host: the host's. Default: none, bridge with -p.",
            ),
            click.option("--broker", metavar="URL", help="Who has the image's key."),
            click.option("--broker-pin", metavar="sha256:HEX", help="SPKI digest of the broker's certificate."),
            click.option(
                "--broker-cert", type=click.Path(exists=True, dir_okay=False), help="Or the certificate, PEM."
            ),
            click.option("--debug", is_flag=True, help="Set the debug bit of the guest's policy."),
        )
    ):
        command = option(command)
    return command


def run_options(given: dict[str, Any]) -> RunOptions:
    """The strings that click gives as checked options."""
    from adyton.runtime import options

    for name, value in given.items():
        for word in value if isinstance(value, tuple) else (value,):
            _check_text(name, word)
    env: dict[str, str] = {}
    for file in given.get("env_file", ()):
        env |= options.env_file(read_text(Path(file)), os.environ)
    env |= options.env(given["env"], os.environ)
    for name, value in env.items():
        _check_text(f"env.{name}", value)
    return options.RunOptions(
        image=given["image"],
        command=given["command"],
        entrypoint=None if given["entrypoint"] is None else options.entrypoint(given["entrypoint"]),
        env=env,
        workdir=given["workdir"],
        user=given["user"],
        volumes=tuple(options.volume(text) for text in given["volumes"]),
        tmpfs=tuple(options.tmpfs(text) for text in given["tmpfs"]),
        publish=tuple(options.publish(text) for text in given["publish"]),
        network=given["network"],
        interactive=given.get("interactive", False),
        terminal=given.get("terminal", False),
        remove=given.get("remove", False),
        detach=given.get("detach", False),
        name=options.name(given["name"]) if given.get("name") else "",
        debug=given["debug"],
    )


def _check_text(field: str, word: object) -> None:
    """A document is UTF-8 text, and so is all that it says."""
    try:
        if isinstance(word, str):
            word.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            "an argument is not UTF-8 text, which is all that a workload document can say",
            code="not_text",
            field=field,
            got=ascii(word)[:80],
        ) from error


def registry_access(given: dict[str, Any]) -> RegistryOptions:
    """Where the image's registry's credentials and certificates are; nothing for an image on disk."""
    from adyton.image.reference import ImageReference

    return access((ImageReference.parse(given["image"]),), **{name: given[name] for name in REGISTRY_OPTIONS})


def say_if_foreign(config: ImageConfig) -> None:
    """A line on standard error where the image was built for another kind of machine, as podman says it."""
    here = chosen_platform(None)
    if (config.os, config.architecture) != (here.os, here.architecture):
        theirs = f"{config.os}/{config.architecture}"
        say(f"adyton: the image is for {theirs}, and this machine is {here.os}/{here.architecture}")


def broker_option(given: dict[str, Any]) -> Broker | None:
    """``--broker`` with its pin."""
    from adyton.protocol.workload import Broker

    if given["broker"] is None:
        if given["broker_pin"] or given["broker_cert"]:
            raise ConfigError("a pin needs the broker it belongs to", code="option_invalid", hint="--broker URL")
        return None
    pin = given["broker_pin"]
    if given["broker_cert"]:
        from cryptography.hazmat.primitives.hashes import SHA256, Hash
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
        from cryptography.x509 import load_pem_x509_certificate

        try:
            key = load_pem_x509_certificate(read(Path(given["broker_cert"]))).public_key()
        except ValueError as error:
            raise ConfigError(
                "not a PEM certificate", code="certificate_malformed", field="--broker-cert", got=given["broker_cert"]
            ) from error
        digest = Hash(SHA256())
        digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        computed = f"sha256:{digest.finalize().hex()}"
        if pin is not None and pin != computed:
            raise ConfigError(
                "--broker-pin is not the pin of --broker-cert", code="option_invalid", expected=computed, got=pin
            )
        pin = computed
    return Broker(url=given["broker"], pin=pin)
