"""SLSA provenance in in-toto statements, signed as DSSE: what was built, by whom, how, from what.

Statement v0.1 and v1, predicate SLSA v0.2 and v1. The subjects' digests become reference values, if the builder, the
kind of build and everything that went into it are on the lists of the provider's entry. A list that is empty allows
nothing; provenance that does not say what went in is refused.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, NamedTuple

from adyton.errors import DocumentInvalid
from adyton.provenance import digests, dsse, times
from adyton.provenance.provider import Provider, matches
from adyton.provenance.values import MAX_VALUES, Stated, Statement, refused

KIND = "slsa"
MEDIA_TYPE = "application/vnd.in-toto+json"
STATEMENTS = ("https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1")
V02 = "https://slsa.dev/provenance/v0.2"
V1 = "https://slsa.dev/provenance/v1"
SPEC = "SLSA provenance v0.2, v1"
MAX_MATERIALS = 5000


class Build(NamedTuple):
    """What a predicate says, whichever its version. ``materials`` are pairs of URI and digests."""

    builder: object
    build_type: object
    materials: object
    finished: object
    fields: tuple[str, str, str, str]


class Slsa:
    """Reads statements with SLSA provenance."""

    kind = KIND

    def recognises(self, parsed: object, document: bytes) -> bool:
        """An envelope of in-toto's media type that holds a statement: layouts and links are another extractor's."""
        if not dsse.is_envelope(parsed) or not isinstance(parsed, dict) or parsed["payloadType"] != MEDIA_TYPE:
            return False
        try:
            inside = dsse.parse(parsed).content()
        except DocumentInvalid:
            return False
        return isinstance(inside, dict) and str(inside.get("_type")).startswith("https://in-toto.io/Statement/")

    def extract(self, parsed: Any, document: bytes, provider: Provider, now: datetime) -> Statement:
        """Verify the envelope, then what it says."""
        envelope = dsse.parse(parsed)
        signers = dsse.verify(envelope, provider.keys, provider.threshold)
        statement = envelope.content()
        if not isinstance(statement, dict) or statement.get("_type") not in STATEMENTS:
            raise _malformed("_type", STATEMENTS, statement)
        build = _build(statement.get("predicateType"), statement.get("predicate"))
        _check(build, provider)
        finished = times.read(build.finished, build.fields[3], SPEC)
        issue = times.micros(finished)
        return Statement(
            kind=KIND,
            values={
                name: Stated(value, "slsa", issue, exact=False)
                for name, value in _subjects(statement.get("subject")).items()
            },
            proof=hashlib.sha256(envelope.signed).digest(),
            signers=signers,
            issued=finished,
            not_before=finished,
        )


def _build(kind: object, predicate: object) -> Build:
    if not isinstance(predicate, dict):
        raise _malformed("predicate", "an object", predicate)
    if kind == V02:
        metadata = _object(predicate.get("metadata"), "metadata")
        return Build(
            _object(predicate.get("builder"), "builder").get("id"),
            predicate.get("buildType"),
            predicate.get("materials"),
            metadata.get("buildFinishedOn"),
            ("builder.id", "buildType", "materials", "metadata.buildFinishedOn"),
        )
    if kind == V1:
        definition = _object(predicate.get("buildDefinition"), "buildDefinition")
        details = _object(predicate.get("runDetails"), "runDetails")
        return Build(
            _object(details.get("builder"), "runDetails.builder").get("id"),
            definition.get("buildType"),
            definition.get("resolvedDependencies"),
            _object(details.get("metadata"), "runDetails.metadata").get("finishedOn"),
            (
                "runDetails.builder.id",
                "buildDefinition.buildType",
                "buildDefinition.resolvedDependencies",
                "runDetails.metadata.finishedOn",
            ),
        )
    raise _malformed("predicateType", [V02, V1], kind)


def _check(build: Build, provider: Provider) -> None:
    """Builder, kind of build and every material against the owner's lists; nothing is allowed that is on none."""
    if not isinstance(build.builder, str) or build.builder not in provider.builders:
        raise _foreign("the builder is not one of the provider's", "slsa_builder", build.fields[0], build.builder)
    if not isinstance(build.build_type, str) or build.build_type not in provider.build_types:
        raise _foreign(
            "the kind of build is not one of the provider's", "slsa_build_type", build.fields[1], build.build_type
        )
    materials = build.materials
    if not isinstance(materials, list) or not materials or len(materials) > MAX_MATERIALS:
        raise refused(
            "the provenance does not say what went into the build",
            "slsa_materials_missing",
            field=build.fields[2],
            expected=f"1 to {MAX_MATERIALS} materials",
            got=len(materials) if isinstance(materials, list) else type(materials).__name__,
            spec=SPEC,
        )
    for material in materials:
        uri = material.get("uri") if isinstance(material, dict) else None
        if not isinstance(uri, str) or not matches(uri, provider.materials):
            raise _foreign(
                "something went into the build that the provider's entry does not allow",
                "slsa_material",
                build.fields[2],
                uri,
            )
        if not isinstance(material.get("digest"), dict) or not material["digest"]:
            raise refused(
                "a material without a digest could have been anything",
                "slsa_material_digest",
                field=build.fields[2],
                got=uri[:200],
                spec=SPEC,
            )


def _subjects(subjects: object) -> dict[str, Any]:
    if not isinstance(subjects, list) or not 0 < len(subjects) <= MAX_VALUES:
        raise _malformed("subject", f"1 to {MAX_VALUES} subjects", subjects)
    found: dict[str, Any] = {}
    for subject in subjects:
        name = subject.get("name") if isinstance(subject, dict) else None
        if not isinstance(name, str) or not name:
            raise _malformed("subject.name", "a name", name)
        if name in found:
            raise _malformed("subject.name", "each name once", name)
        found[name] = digests.values(subject.get("digest"), f"subject {name[:80]}")
    return found


def _object(value: object, field: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _malformed(field, "an object", value)
    return value


def _foreign(message: str, code: str, field: str, got: object) -> Exception:
    return refused(
        message,
        code,
        field=field,
        expected="one of the provider's",
        got=str(got)[:200],
        spec=SPEC,
        hint="if it is right, add it to the provider's entry; what is not listed there is refused",
    )


def _malformed(field: str, expected: object, got: object) -> Exception:
    return refused(
        "not SLSA provenance", "document_malformed", field=field, expected=expected, got=str(got)[:120], spec=SPEC
    )
