"""``adyton key encrypt|decrypt|…``: what an owner may do with a key whose settings let its owner (``--owner-may``)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli.administering import broker_options, open_admin
from adyton.cli.binding import read_bytes
from adyton.cli.files import write
from adyton.cli.output import Exit, json_option, print_json, print_line, say
from adyton.errors import DocumentInvalid

if TYPE_CHECKING:
    from adyton.protocol.keys import Operation, TransitAnswer, TransitBody

MAX_INPUT = 1024 * 1024
_IN = click.option(
    "--file", "-f", "file", default="-", type=click.Path(allow_dash=True), help="Input [default: stdin]."
)
_OUT = click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="[default: stdout]")
_AAD = click.option("--aad", default="", help="Additional data that must be given again to open it.")
_ALGORITHM = click.option("--algorithm", default="", help="Where the kind has a choice: JWE, PS384 …")
_ONE = click.option("--version", type=click.IntRange(min=1), help="[default: the newest, or what the text says]")


def _made(*options: Callable[[Any], Any]) -> Callable[[Callable[..., None]], click.Command]:
    """A command on the key at URI, with the broker's options and these."""

    def decorate(run: Callable[..., None]) -> click.Command:
        command: Any = json_option(broker_options(run))
        for option in reversed(options):
            command = option(command)
        return click.command(run.__name__)(click.argument("uri")(command))

    return decorate


def _used(operation: Operation, uri: str, given: TransitBody, options: dict[str, Any]) -> TransitAnswer:
    from adyton.client.keys import Keys
    from adyton.protocol.resource import ResourcePath

    with open_admin(**options) as admin:
        return Keys(admin).use(operation, ResourcePath.parse(uri), given)


@_made(_IN, _AAD, _ALGORITHM)
def encrypt(uri: str, file: str, aad: str, algorithm: str, as_json: bool, **options: Any) -> None:
    """Encrypt what is in a file; prints the ciphertext, which names its version."""
    from adyton.protocol.keys import TransitBody

    given = TransitBody(plaintext=_read(file), aad=aad.encode(), algorithm=algorithm)
    _text(_used("encrypt", uri, given, options), as_json)


@_made(_IN, _AAD, _ONE, _OUT)
def decrypt(  # noqa: PLR0917 -- one option each
    uri: str, file: str, aad: str, version: int | None, output: Path | None, as_json: bool, **options: Any
) -> None:
    """Decrypt a ciphertext; writes what was encrypted."""
    from adyton.protocol.keys import TransitBody

    given = TransitBody(ciphertext=_ciphertext(file), aad=aad.encode(), version=version)
    _bytes(_used("decrypt", uri, given, options), output, as_json)


@_made(_IN, _AAD)
def rewrap(uri: str, file: str, aad: str, as_json: bool, **options: Any) -> None:
    """Bring a ciphertext to the newest version; nobody sees what is in it."""
    from adyton.protocol.keys import TransitBody

    _text(_used("rewrap", uri, TransitBody(ciphertext=_ciphertext(file), aad=aad.encode()), options), as_json)


@_made(_IN, _AAD)
def wrap(uri: str, file: str, aad: str, as_json: bool, **options: Any) -> None:
    """Wrap another key, read from a file; only unwrap opens it."""
    from adyton.protocol.keys import TransitBody

    _text(_used("wrap", uri, TransitBody(plaintext=_read(file), aad=aad.encode()), options), as_json)


@_made(_IN, _AAD, _OUT)
def unwrap(uri: str, file: str, aad: str, output: Path | None, as_json: bool, **options: Any) -> None:
    """Unwrap what wrap or datakey gave."""
    from adyton.protocol.keys import TransitBody

    given = TransitBody(ciphertext=_ciphertext(file), aad=aad.encode())
    _bytes(_used("unwrap", uri, given, options), output, as_json)


@_made(_AAD, _OUT)
def datakey(uri: str, aad: str, output: Path | None, as_json: bool, **options: Any) -> None:
    """Make a data key of 32 bytes: wrapped on standard output, and itself in -o FILE if that is given."""
    from adyton.protocol.keys import TransitBody

    done = _used("datakey", uri, TransitBody(aad=aad.encode(), bare=output is None), options)
    if output is not None:
        write(output, done.plaintext or b"", private=True)
    if as_json:
        print_json({"version": done.version, "ciphertext": done.ciphertext})
    else:
        print_line(done.ciphertext or "")


@_made(_IN, _ALGORITHM)
def sign(uri: str, file: str, algorithm: str, as_json: bool, **options: Any) -> None:
    """Sign what is in a file; prints the signature, base64."""
    from adyton.protocol.keys import TransitBody

    _signature(_used("sign", uri, TransitBody(message=_read(file), algorithm=algorithm), options), as_json)


@_made(_IN)
def mac(uri: str, file: str, as_json: bool, **options: Any) -> None:
    """Authenticate what is in a file; prints the code, base64."""
    from adyton.protocol.keys import TransitBody

    _signature(_used("mac", uri, TransitBody(message=_read(file)), options), as_json)


@_made(_IN, click.option("--signature", required=True, help="Base64, as sign and mac print it."), _ALGORITHM, _ONE)
def verify(  # noqa: PLR0917 -- one option each
    uri: str, file: str, signature: str, algorithm: str, version: int | None, as_json: bool, **options: Any
) -> None:
    """Verify a signature or MAC (base64) over what is in a file. Exit status 1 if it does not hold."""
    from adyton.protocol.keys import TransitBody
    from adyton.wire import b64

    try:
        given = TransitBody(message=_read(file), signature=b64.decode(signature), algorithm=algorithm, version=version)
    except ValueError as error:
        raise DocumentInvalid("not a signature in base64", code="signature_malformed", field="signature") from error
    done = _used("verify", uri, given, options)
    if as_json:
        print_json({"version": done.version, "algorithm": done.algorithm, "valid": done.valid is True})
    else:
        say(f"{'valid' if done.valid else 'NOT valid'} for version {done.version} ({done.algorithm})")
    if not done.valid:
        raise Exit(1)


def _read(file: str) -> bytes:
    return read_bytes(file, MAX_INPUT)


def _ciphertext(file: str) -> str:
    try:
        return _read(file).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise DocumentInvalid("not a ciphertext", code="ciphertext_malformed", field=file) from error


def _text(done: TransitAnswer, as_json: bool) -> None:
    if as_json:
        print_json({"version": done.version, "ciphertext": done.ciphertext})
    else:
        print_line(done.ciphertext or "")


def _signature(done: TransitAnswer, as_json: bool) -> None:
    from adyton.wire import b64

    text = b64.encode(done.signature or b"")
    if as_json:
        print_json({"version": done.version, "algorithm": done.algorithm, "signature": text})
    else:
        print_line(text)


def _bytes(done: TransitAnswer, output: Path | None, as_json: bool) -> None:
    from adyton.wire import b64

    value = done.plaintext or b""
    if output is not None:
        write(output, value, private=True)
    if as_json:
        told: dict[str, object] = {"version": done.version, "bytes": len(value)}
        print_json(told if output is not None else {**told, "plaintext": b64.encode(value)})
    elif output is None:
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()  # a full disk is an error of this command, not of the interpreter's end


COMMANDS: tuple[click.Command, ...] = (encrypt, decrypt, rewrap, wrap, unwrap, datakey, sign, mac, verify)
