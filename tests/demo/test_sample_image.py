from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from adyton.demo.sample_image import build


@pytest.mark.skipif(
    shutil.which("skopeo") is None or shutil.which("busybox") is None, reason="needs skopeo and busybox"
)
def test_the_image_is_one_that_others_accept_and_its_program_answers(tmp_path: Path) -> None:
    image = build(tmp_path, b"marker-0123456789abcdef")
    copied = tmp_path / "copied"
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", f"oci:{image.layout}:v1", f"dir:{copied}"], check=True)
    manifest = json.loads((copied / "manifest.json").read_text())
    holding = [layer for layer in manifest["layers"] if image.marker in (copied / layer["digest"][7:]).read_bytes()]
    assert len(holding) == 1
    root = tmp_path / "root"
    root.mkdir()
    for layer in manifest["layers"]:
        blob = copied / layer["digest"][7:]
        assert "sha256:" + hashlib.sha256(blob.read_bytes()).hexdigest() == layer["digest"]
        subprocess.run(["tar", "-xf", str(blob), "-C", str(root)], check=True)
    program = (root / "www/cgi-bin/predict").read_text().replace("/model/weights.csv", str(root / "model/weights.csv"))
    (root / "predict").write_text(program)
    answer = subprocess.run(
        [str(root / "bin/busybox"), "sh", str(root / "predict")],
        env={"QUERY_STRING": image.query},
        capture_output=True,
        check=True,
    )
    assert json.loads(answer.stdout.split(b"\n\n", 1)[1]) == image.answer
