"""The owner's image: a busybox web service that answers with predictions of a secret model.

Two layers: the software (busybox from Debian, a CGI program), and the model. The model layer is an uncompressed tar, so
that a scan for the marker would see the plaintext wherever a copy of it lay.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from adyton.errors import PlatformError

_PREDICT = """#!/bin/sh
# A linear model: the sum of weight times feature decides between two species of iris.
echo "Content-Type: application/json"
echo
IFS='&'
set -- $QUERY_STRING
unset IFS
printf '%s\\n' "$@" | /bin/busybox awk -F= '
    BEGIN {
        while ((getline line < "/model/weights.csv") > 0) {
            if (line ~ /^#/) continue
            split(line, part, ",")
            weight[part[1]] = part[2]
        }
        score = weight["bias"]
    }
    $1 in weight { score += weight[$1] * $2 }
    END { printf "{\\"species\\": \\"%s\\", \\"score\\": %.3f}\\n", (score > 0 ? "virginica" : "versicolor"), score }'
"""

COMMAND = ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"]
PORT = 8080


@dataclass(frozen=True, slots=True)
class SampleImage:
    """Where the OCI layout lies and what to look for. ``marker`` is a text that only the model's plaintext holds."""

    layout: Path
    marker: bytes
    answer: dict[str, object]
    query: str


def build(directory: Path, marker: bytes) -> SampleImage:
    """Write an OCI image layout under ``directory`` (image-spec, image-layout.md) with ``marker`` in its model."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise PlatformError("busybox is missing", code="package_missing", hint="apt-get install busybox-static")
    software = _tar(
        {
            "bin/busybox": (Path(busybox).read_bytes(), 0o755),
            "www/index.html": (b"<title>iris</title><p>POST nothing; GET /cgi-bin/predict\n", 0o644),
            "www/cgi-bin/predict": (_PREDICT.encode(), 0o755),
            "etc/passwd": (b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/www:/bin/sh\n", 0o644),
            "etc/group": (b"root:x:0:\nweb:x:1000:\n", 0o644),
        },
        links={"bin/sh": "/bin/busybox"},
    )
    weights = (
        b"# secret model "
        + marker
        + b"\nbias,-42.638\nsepal_length,-2.465\nsepal_width,-6.681\npetal_length,9.429\npetal_width,18.286\n"
    )
    model = _tar({"model/weights.csv": (weights, 0o644)}, links={})
    layout = directory / "image"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers = [(blob, _add(blobs, blob)) for blob in (software, model)]
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Cmd": COMMAND,
                "User": "web",
                "Env": ["PATH=/bin"],
                "WorkingDir": "/www",
                "ExposedPorts": {f"{PORT}/tcp": {}},
            },
            "rootfs": {"type": "layers", "diff_ids": [digest for _, digest in layers]},
            "history": [{"created_by": "software"}, {"created_by": "model"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config, _add(blobs, config)),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", blob, digest) for blob, digest in layers],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest, _add(blobs, manifest))
    entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (layout / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [entry]}))
    return SampleImage(
        layout=layout,
        marker=marker,
        answer={"species": "virginica", "score": 16.214},
        query="sepal_length=6.5&sepal_width=3.0&petal_length=5.8&petal_width=2.2",
    )


def _tar(files: dict[str, tuple[bytes, int]], links: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder in sorted({str(parent) for name in (*files, *links) for parent in Path(name).parents} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return out.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _add(blobs: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return f"sha256:{digest}"


def _descriptor(media_type: str, data: bytes, digest: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": len(data)}
