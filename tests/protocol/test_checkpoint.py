from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adyton.crypto.merkle import EMPTY
from adyton.errors import DocumentInvalid, LogBroken
from adyton.protocol import checkpoint
from adyton.protocol.checkpoint import Checkpoint, LogKey, LogSigner

NAME = "adyton/audit/0011223344556677/default"
PRIVATE = bytes(range(32))
SIGNER = LogSigner(NAME, PRIVATE)
KEY = SIGNER.public
ROOT = hashlib.sha256(b"root").digest()
NOTE = SIGNER.sign(1234, ROOT)


def edited(**lines: str) -> str:
    """The note with other lines, the signature left as it was."""
    origin, size, root, empty, signature, end = NOTE.split("\n")
    parts = {"origin": origin, "size": size, "root": root, "empty": empty, "signature": signature, "end": end, **lines}
    return "\n".join(parts[name] for name in ("origin", "size", "root", "empty", "signature", "end"))


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        NOTE[:-1],
        NOTE + "\n",
        "\n" + NOTE,
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("\n", "\r\n"),
        edited(size="01234"),
        edited(size="+1234"),
        edited(size="1_234"),
        edited(size="-1"),
        edited(size="1e3"),
        edited(size="\u0661"),
        edited(size=str(2**53)),
        edited(size="9" * 5000),
        edited(size=""),
        edited(size="0"),  # an empty log has one root only
        edited(root="AAAA"),
        edited(root=base64.b64encode(ROOT).decode().rstrip("=")),
        edited(root=base64.urlsafe_b64encode(b"\xfb" * 32).decode()),
        edited(root=base64.b64encode(ROOT).decode() + "\t"),
        edited(origin=""),
        edited(signature="- name AAAAAAAA"),
        edited(signature="\u2014 name"),
        edited(signature="\u2014  AAAAAAAA"),
        edited(signature="\u2014 na+me AAAAAAAA"),
        edited(signature="\u2014 name AAAA"),
        edited(signature="\u2014 name AAAAA"),
        edited(signature=""),
        edited(signature="\n".join(["\u2014 name AAAAAAAA"] * 17)),
        edited(origin="x\ud800"),
        "x" * 70_000,
    ],
)
def test_what_is_no_checkpoint_is_refused(note: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        checkpoint.verify(note, [KEY])
    assert caught.value.code == "checkpoint_malformed"


@pytest.mark.parametrize(
    ("note", "code"),
    [
        (edited(size="1235"), "checkpoint_forged"),
        (edited(root=base64.b64encode(bytes(32)).decode()), "checkpoint_forged"),
        (edited(origin=NAME + "2"), "checkpoint_forged"),
        (NOTE.replace("\n\n", "\nmore\n\n"), "checkpoint_forged"),
        (LogSigner(NAME, bytes(32)).sign(1234, ROOT), "checkpoint_untrusted"),
        (LogSigner(NAME + "2", PRIVATE).sign(1234, ROOT), "checkpoint_untrusted"),
    ],
)
def test_what_the_key_did_not_sign_is_refused(note: str, code: str) -> None:
    with pytest.raises(LogBroken) as caught:
        checkpoint.verify(note, [KEY])
    assert caught.value.code == code


def test_a_checkpoint_of_another_log_is_refused_even_under_its_own_key() -> None:
    other = LogSigner("adyton/audit/0011223344556677/other", PRIVATE)
    with pytest.raises(LogBroken) as caught:
        checkpoint.verify(other.sign(1, ROOT), [KEY, other.public], origin=NAME)
    assert caught.value.code == "checkpoint_of_another_log"


def test_a_witness_does_not_speak_for_the_log() -> None:
    witness = LogSigner("witness.example", bytes(32))
    body = Checkpoint(NAME, 1234, ROOT).body()
    raw = witness.public.id + Ed25519PrivateKey.from_private_bytes(bytes(32)).sign(body)
    line = f"\u2014 witness.example {base64.b64encode(raw).decode()}\n"
    assert checkpoint.verify(NOTE + line, [KEY, witness.public]).size == 1234
    assert checkpoint.verify(NOTE + line, [KEY]).size == 1234  # who is not known is passed over
    with pytest.raises(LogBroken):
        checkpoint.verify(body.decode() + "\n" + line, [KEY, witness.public])


def test_without_keys_nothing_is_believed() -> None:
    with pytest.raises(LogBroken):
        checkpoint.verify(NOTE, [])


@settings(deadline=None)
@given(st.integers(0, len(NOTE) - 1), st.characters())
def test_no_changed_character_verifies(at: int, character: str) -> None:
    if NOTE[at] != character:
        with pytest.raises((LogBroken, DocumentInvalid)):
            checkpoint.verify(NOTE[:at] + character + NOTE[at + 1 :], [KEY])


@given(st.text() | st.text("\n\u2014 aA0=+"))
@example("a\n1\nAAAA\n\n\u2014 a AAAA\n")
def test_any_text_is_a_checkpoint_or_refused(text: str) -> None:
    try:
        checkpoint.parse(text)
    except DocumentInvalid as error:
        assert error.code == "checkpoint_malformed"


@pytest.mark.parametrize(
    "text",
    ["", "name", "name+00000000", KEY.text()[:-4], KEY.text().replace("+", " "), KEY.text() + "=", f"{NAME}+00000000+{KEY.text().rpartition('+')[2]}", "na me+00000000+AQ==", "+00000000+AQ==", KEY.text().replace("+" + KEY.id.hex(), "+" + KEY.id.hex().upper() + "0")],
)  # fmt: skip
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        LogKey.parse(text)
    assert caught.value.code == "log_key_malformed"


def test_another_algorithms_key_is_refused() -> None:
    key = base64.b64encode(b"\x04" + KEY.public).decode()
    with pytest.raises(DocumentInvalid):
        LogKey.parse(f"{NAME}+{KEY.id.hex()}+{key}")


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "a\u2003b", "x" * 300])
def test_a_name_that_would_break_the_format_is_misuse(name: str) -> None:
    with pytest.raises(ValueError, match="a log's key"):
        LogKey(name, bytes(32))


def test_misuse_of_the_signer() -> None:
    for size, root in ((-1, ROOT), (2**53, ROOT), (1, b"")):
        with pytest.raises(ValueError, match="a checkpoint"):
            SIGNER.sign(size, root)


@pytest.mark.parametrize(
    "text",
    [
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
    ],
)
def test_keys_of_others_are_read_and_written(text: str) -> None:
    assert LogKey.parse(text).text() == text  # the id is computed anew


@given(st.integers(1, 2**53 - 1), st.binary(min_size=32, max_size=32))
def test_what_was_signed_is_read_and_verified(size: int, root: bytes) -> None:
    note = SIGNER.sign(size, root)
    assert checkpoint.verify(note, [LogKey.parse(KEY.text())], origin=NAME) == Checkpoint(NAME, size, root)
    assert checkpoint.parse(note) == Checkpoint(NAME, size, root)


def test_an_empty_log_and_extensions() -> None:
    assert checkpoint.verify(SIGNER.sign(0, EMPTY), [KEY]).size == 0
    body = Checkpoint(NAME, 7, ROOT, ("time 1", "b")).body()
    raw = KEY.id + Ed25519PrivateKey.from_private_bytes(PRIVATE).sign(body)
    note = f"{body.decode()}\n\u2014 {NAME} {base64.b64encode(raw).decode()}\n"
    assert checkpoint.verify(note, [KEY]).extensions == ("time 1", "b")


def test_private_keys_are_new_each_time() -> None:
    assert len(LogSigner.generate()) == 32
    assert LogSigner.generate() != LogSigner.generate()
