#!/bin/sh
# The wheel, the source archive, and what is in them (a CycloneDX SBOM, made from the lock): dist/. The same commit gives
# the same bytes on every machine.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
bin=$(dirname "$python")
out=${1:-dist}
rm -rf "$out"
mkdir -p "$out"
umask 022
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 1577836800)
export SOURCE_DATE_EPOCH
"$python" -m build --no-isolation --outdir "$out" . > "$out/build.log" 2>&1 || { cat "$out/build.log" >&2; exit 1; }
rm "$out/build.log"
"$bin/cyclonedx-py" requirements --pyproject pyproject.toml --mc-type application --short-PURLs --output-reproducible \
    --of JSON -o "$out/adyton.cdx.json" requirements/run.txt 2> "$out/sbom.log" || { cat "$out/sbom.log" >&2; exit 1; }
rm "$out/sbom.log"
sums=$(cd "$out" && sha256sum ./* | sed 's# \./# #')  # all of them before the file of sums is there
printf '%s\n' "$sums" > "$out/SHA256SUMS"
cat "$out/SHA256SUMS"
