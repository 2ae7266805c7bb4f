"""The verifier's reference: its Python runs as it stands, and it names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adyton import tee as tees
from adyton.cli import adyton
from adyton.cli.output import run
from adyton.collateral.directory import SUFFIXES

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "reference" / "verifier.md"
TEXT = DOCUMENT.read_text()
README = (REPOSITORY / "README.md").read_text()
COLLATERAL = "dcap-collateral/tdx-b0c06f000000-tcbv3-ev17-2025-06-19-cb8093.json"


def test_its_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 4
    exec(compile("\n".join(blocks), str(DOCUMENT), "exec"), {})


def test_every_tee_stands_there_with_its_fields() -> None:
    rows = [line.split(" | ") for line in TEXT.splitlines() if re.match(r"\| `[a-z]", line) and line.count(" | ") == 2]
    sizes = {name: row[2].strip(" |") for row in rows for name in re.findall("`([a-z-]+)`", row[0])}
    assert set(sizes) >= set(tees.ROOMS)
    for name, (report, init) in tees.FIELD_SIZES.items():
        both = [{None: "any", 0: "none"}.get(size, str(size)) for size in (report, init)]
        assert sizes[name] == ", ".join(both) or name == "sampledevice", name


def test_every_option_and_suffix_stands_there() -> None:
    group = adyton.get_command(None, "evidence")  # type: ignore[arg-type]  # a group without parameters
    verify = group.commands["verify"]  # type: ignore[union-attr]
    for parameter in verify.params:
        assert parameter.opts[0] in TEXT or parameter.name == "file", parameter.name
    for suffix in SUFFIXES:
        assert f"`{suffix}`" in TEXT


@pytest.mark.vectors
def test_the_tree_that_the_readme_shows_is_real(vectors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command, shown) = re.findall(r"^\$ (adyton evidence verify [^\n]*)\n(.*?)```", README, re.MULTILINE | re.DOTALL)[0]
    files = {"quote.bin": "tdx/quotes/v4-b0c06f-phala.bin", "collateral.json": COLLATERAL}
    arguments = [str(vectors / files[word]) if word in files else word for word in command.split()[1:]]
    assert run(adyton, arguments) == 0
    printed = capsys.readouterr().out.replace(arguments[2], "quote.bin").splitlines()
    at = 0
    for line in shown.splitlines():
        if line != " …":
            at = printed.index(line, at) + 1
