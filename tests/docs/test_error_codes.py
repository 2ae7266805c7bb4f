from __future__ import annotations

import re
import runpy
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "reference" / "error-codes.md"
SCRIPT = runpy.run_path(str(REPOSITORY / "scripts" / "error_codes.py"))


def documented() -> tuple[set[str], set[str]]:
    """Codes, and roles."""
    text = DOCUMENT.read_text()
    roles = {
        role for line in re.findall(r"^Roles: (.*)$", text, re.MULTILINE) for role in re.findall("`([a-z_]+)`", line)
    }
    return set(re.findall(r"^\| `([A-Za-z_0-9]+)` ", text, re.MULTILINE)), roles


def test_the_written_codes_are_the_real_ones() -> None:
    assert DOCUMENT.read_text() == SCRIPT["render"](), "run .venv/bin/python scripts/error_codes.py"


def test_every_literal_code_of_a_verifier_is_there() -> None:
    codes, _ = documented()
    for path in sorted((REPOSITORY / "src" / "adyton" / "tee").rglob("*.py")):
        if path.name not in SCRIPT["NOT_VERDICTS"]:
            for code in re.findall(r'code="([a-z_0-9]+)"', path.read_text()):
                assert code in codes, f"{path}: {code}"


def test_every_code_that_a_test_expects_is_there() -> None:
    """The rooms' tests name codes in their tables of what must be refused; those are a second witness."""
    codes, roles = documented()
    suffixes = {code.removeprefix("ROLE_") for code in codes if code.startswith("ROLE_")}
    known = codes | {f"{role}_{suffix}" for role in roles for suffix in suffixes} | {"malformed_evidence"}
    fields = any(code == "malformed_FIELD" for code in codes)
    for path in sorted((REPOSITORY / "tests" / "tee").rglob("test_*.py")):
        if path.stem in {f"test_{Path(name).stem}" for name in SCRIPT["NOT_VERDICTS"]}:
            continue
        for code in re.findall(r'code == "([a-z_0-9]+)"', path.read_text()):
            assert code in known or (fields and code.startswith("malformed_")), f"{path}: {code}"
