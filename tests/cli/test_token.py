"""``adyton token verify``: tokens that do not verify first, then what one says in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adyton.cli import main as front
from adyton.cli.output import run
from adyton.cli.token import token
from adyton.crypto.jwt import Signer, jwks
from adyton.protocol.ear import PROFILE
from adyton.rats.result import ELEMENTS

SIGNER = Signer.generate()
VECTOR = dict.fromkeys(ELEMENTS, 0) | {"hardware": 32, "executables": 3}
CLAIMS: dict[str, Any] = {
    "eat_profile": PROFILE,
    "iat": 1000,
    "exp": 2000,
    "iss": "Adyton",
    "ear.verifier-id": {"build": "adyton 1", "developer": "x"},
    "submods": {
        "cpu0": {
            "ear.status": "warning",
            "ear.trustworthiness-vector": VECTOR,
            "ear.appraisal-policy-id": "default",
            "ear.veraison.annotated-evidence": {
                "adyton": {
                    "tee": "snp\x1b[31m",
                    "measurement": "ab",
                    "root": "custom",
                    "root_fingerprint": "cd",
                    "unchecked": ["chip_id"],
                },
                "runtime_data_claims": {},
            },
        }
    },
}
AT = "1970-01-01T00:20:00Z"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "keys").write_bytes(jwks((SIGNER,)))
    return tmp_path


def verify(place: Path, text: str, *more: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    (place / "token").write_text(text)
    status = run(token, ["verify", str(place / "token"), "--jwks", str(place / "keys"), "--at", AT, *more])
    said = capsys.readouterr()
    return status, said.out, said.err


def signed(**change: Any) -> str:
    return SIGNER.sign(json.dumps({**CLAIMS, **change}).encode())


@pytest.mark.parametrize(
    ("text", "more", "code"),
    [
        ("", (), "token_invalid"),
        ("{}", (), "token_malformed"),
        ("{" * 2000, (), "token_malformed"),
        (signed()[:-4] + "AAAA", (), "token_invalid"),
        (Signer.generate().sign(json.dumps(CLAIMS).encode()), (), "token_invalid"),
        (signed(exp=1100), (), "token_expired"),
        (signed(), ("--issuer", "Other"), "token_issuer"),
        (signed(), ("--audience", "me"), "token_audience"),
        (signed(aud=["you"]), ("--audience", "me"), "token_audience"),
        (signed(eat_profile="x"), (), "token_malformed"),
    ],
)
def test_refused(place: Path, capsys: pytest.CaptureFixture[str], text: str, more: tuple[str, ...], code: str) -> None:
    status, out, _ = verify(place, text, *more, "--json", capsys=capsys)
    assert status in {1, 2} and json.loads(out)["error"]["code"] == code


def test_usage(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "token").write_text(signed())
    assert run(token, ["verify", str(place / "token")]) == 3
    assert run(token, ["verify", str(place / "token"), "--jwks", str(place / "keys"), "--at", "soon"]) == 3
    assert CliRunner().invoke(token, ["--help"]).exit_code == 0
    assert front is not None
    capsys.readouterr()


def test_explained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = verify(place, json.dumps({"token": signed(aud="me")}), "--audience", "me", capsys=capsys)
    text = out + err
    assert status == 0, text
    assert "warning" in text and "NO HARDWARE PROTECTION" in text and "chip_id" in text and "for 800 s" in text
    assert "\x1b" not in text
    status, out, _ = verify(place, signed(), "--json", capsys=capsys)
    assert status == 0 and json.loads(out)["claims"]["iss"] == "Adyton"
