"""Collateral in every form in which it is kept; JSON from strangers; the choice among several sets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tee.dcap.conftest import NOW, Lab

from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap_certificates import make_root, make_tcb_signing, new_key
from adyton.devtee.dcap_collateral import Level, ModuleLevel, raw_signature
from adyton.errors import EndorsementError, EndorsementMalformed
from adyton.tee.dcap import documents, qe_identity, signed_json, tcb_info
from adyton.tee.dcap.signed_json import Signed


def test_each_form_says_the_same(lab: Lab, kind: str) -> None:
    room = "sgx" if kind == "sgx" else "tdx"
    collateral = lab.forge.collateral(room, levels=[*lab.forge.levels(room, ("SWHardeningNeeded",))])
    bundle = collateral.bundle()
    served = bundle | {
        "tcb_info": collateral.tcb_info.document().decode() if collateral.tcb_info else "",
        "qe_identity": collateral.qe_identity.document().decode() if collateral.qe_identity else "",
    }
    in_pem = bundle | {"root_ca_crl": _pem_crl(bundle["root_ca_crl"]), "pck_crl": _pem_crl(bundle["pck_crl"])}
    separate = b"".join(_pem(item) for item in (collateral.root, collateral.pck_ca, collateral.tcb_signing))
    forms: list[list[bytes]] = [
        list(collateral.blobs()),
        [json.dumps(bundle).encode()],
        [json.dumps(bundle, separators=(",", ":")).encode()],
        [json.dumps(bundle, indent=2).encode()],
        [json.dumps(dict(reversed(bundle.items()))).encode()],
        [json.dumps(served).encode()],
        [json.dumps(in_pem).encode()],
        [json.dumps(bundle | {"pck_certificate_chain": None, "version": 3}).encode()],
        [separate, *collateral.blobs()[:2], *collateral.blobs()[-2:]],
    ]
    for blobs in forms:
        verified = lab.verify(lab.quote(kind), endorsements=EndorsementSet.parse(blobs))
        assert verified.claims["tcb_status"] == "SWHardeningNeeded"
        assert verified.claims["pck_crl_number"] == 1


def _pem(certificate: Any) -> bytes:
    encoded: bytes = certificate.public_bytes(Encoding.PEM)
    return encoded


def _pem_crl(der: str) -> str:
    import base64

    body = base64.encodebytes(bytes.fromhex(der)).decode()
    return f"-----BEGIN X509 CRL-----\n{body}-----END X509 CRL-----\n"


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "no object": lambda bundle: [bundle],
    "signature of the wrong length": lambda bundle: bundle | {"tcb_info_signature": "00" * 63},
    "signature that is no hex": lambda bundle: bundle | {"tcb_info_signature": "zz" * 64},
    "signature with spaces": lambda bundle: bundle | {"tcb_info_signature": " 0" * 64},
    "no signature": lambda bundle: {k: v for k, v in bundle.items() if k != "qe_identity_signature"},
    "a number for a text": lambda bundle: bundle | {"tcb_info": 7},
    "an object for a text": lambda bundle: bundle | {"tcb_info": json.loads(bundle["tcb_info"])},
    "broken CRL": lambda bundle: bundle | {"pck_crl": "3000"},
    "odd CRL": lambda bundle: bundle | {"pck_crl": "300"},
    "broken chain": lambda bundle: bundle | {"tcb_info_issuer_chain": "-----BEGIN CERTIFICATE-----\nAA=="},
    "a CRL in a chain": lambda bundle: bundle | {"tcb_info_issuer_chain": _pem_crl(bundle["pck_crl"])},
    "broken base64": lambda bundle: (
        bundle | {"tcb_info_issuer_chain": "-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n"}
    ),
    "text that is no JSON": lambda bundle: bundle | {"qe_identity": "{"},
    "text that is no object": lambda bundle: bundle | {"qe_identity": "7"},
    "served without its member": lambda bundle: bundle | {"qe_identity": '{"signature":"00"}'},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bundle_that_cannot_be_read(lab: Lab, name: str) -> None:
    broken = json.dumps(BROKEN[name](dict(lab.forge.collateral("sgx").bundle()))).encode()
    with pytest.raises(EndorsementMalformed):
        documents.read(EndorsementSet(documents=[broken]))


def test_a_bundle_written_otherwise_is_the_same(lab: Lab) -> None:
    plain = lab.forge.collateral("tdx").bundle()
    wanted = documents.read(EndorsementSet(documents=[json.dumps(plain).encode()]))
    assert len(wanted.signed) == 2
    for other in (
        json.dumps(plain, indent=3),
        json.dumps(dict(reversed(plain.items())), separators=(",", ":")),
        json.dumps(plain | {"more": {"tcb_info": 1}}),
        json.dumps(plain | {"pck_certificate_chain": None}),
        json.dumps(plain).replace('"tcb_info"', '"tcb\\u005finfo"').replace('\\"', "\\u0022"),
    ):
        found = documents.read(EndorsementSet(documents=[other.encode()]))
        assert set(found.by_der) == set(wanted.by_der)
        assert set(found.pool.crls) == set(wanted.pool.crls)
        assert [(item.name, item.content, item.signature) for item in found.signed] == [
            (item.name, item.content, item.signature) for item in wanted.signed
        ]


def test_a_member_that_comes_twice(lab: Lab) -> None:
    collateral = lab.forge.collateral("sgx")
    assert collateral.tcb_info is not None
    document = collateral.tcb_info.document()
    other = lab.forge.collateral("sgx", info={"tcbEvaluationDataNumber": 99}).tcb_info
    assert other is not None
    doubles = [
        document[:-1] + b',"tcbInfo":' + other.text + b"}",
        b'{"tcbInfo":' + other.text + b"," + document[1:],
        document[:-1] + b',"tcbInfo":{}}',
        document[:-1] + b',"\\u0074cbInfo":' + other.text + b"}",
    ]
    bundle = json.dumps(collateral.bundle())
    doubles.append(bundle[:-1].encode() + b',"tcb_info":"{}"}')
    doubles.append(b'{"pck_crl":null,' + bundle[1:].encode())
    doubles.append(b'{"pck\\u005fcrl":null,' + bundle[1:].encode())
    odd = bundle.replace('\\"', "\\u0022", 1)  # one quotation mark less, which the second member's two would not show
    assert odd != bundle
    doubles.append(odd.replace('\\"', "\\u0022", 1)[:-1].encode() + b',"pck_crl":null}')
    doubles.append(b'{"x":1,"x":1,' + bundle[1:].encode())
    for double in doubles:
        with pytest.raises(EndorsementMalformed):
            documents.read(EndorsementSet(documents=[double]))


def signed(lab: Lab, text: bytes, name: str = "tcbInfo") -> Signed:
    return Signed.of(name, text, raw_signature(lab.forge.tcb_signing.key, text))


def changed(lab: Lab, tee: str, change: Callable[[dict[str, Any]], object]) -> Signed:
    collateral = lab.forge.collateral(tee)
    assert collateral.tcb_info is not None
    body = json.loads(collateral.tcb_info.text)
    change(body)
    return signed(lab, json.dumps(body).encode())


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "version 1": lambda body: body.update(version=1),
    "version 4": lambda body: body.update(version=4),
    "version as text": lambda body: body.update(version="3"),
    "another id": lambda body: body.update(id="TPM"),
    "no id": lambda body: body.pop("id"),
    "version 2 with an id": lambda body: body.update(version=2),
    "another comparison": lambda body: body.update(tcbType=1),
    "no levels": lambda body: body.update(tcbLevels=[]),
    "15 components": lambda body: body["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].pop(),
    "17 components": lambda body: body["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].append({"svn": 0}),
    "no TDX components": lambda body: body["tcbLevels"][0]["tcb"].pop("tdxtcbcomponents"),
    "no PCESVN": lambda body: body["tcbLevels"][0]["tcb"].pop("pcesvn"),
    "an SVN too large": lambda body: body["tcbLevels"][0]["tcb"]["sgxtcbcomponents"][0].update(svn=256),
    "a negative SVN": lambda body: body["tcbLevels"][0]["tcb"]["sgxtcbcomponents"][0].update(svn=-1),
    "an SVN as text": lambda body: body["tcbLevels"][0]["tcb"]["sgxtcbcomponents"][0].update(svn="1"),
    "a fraction": lambda body: body["tcbLevels"][0]["tcb"].update(pcesvn=1.5),
    "an unknown status": lambda body: body["tcbLevels"][0].update(tcbStatus="Fine"),
    "a status that only comparing gives": lambda body: body["tcbLevels"][0].update(tcbStatus="TDRelaunchAdvised"),
    "a date that is none": lambda body: body["tcbLevels"][0].update(tcbDate="yesterday"),
    "an issue date without zone": lambda body: body.update(issueDate="2026-06-01T00:00:00"),
    "an issue date with another zone": lambda body: body.update(issueDate="2026-06-01T00:00:00+01:00"),
    "a month 13": lambda body: body.update(nextUpdate="2026-13-01T00:00:00Z"),
    "a short FMSPC": lambda body: body.update(fmspc="00"),
    "an FMSPC that is no hex": lambda body: body.update(fmspc="zz" * 6),
    "advisories that are no list": lambda body: body["tcbLevels"][0].update(advisoryIDs="INTEL-SA-1"),
    "no module": lambda body: body.pop("tdxModule"),
    "a short signer": lambda body: body["tdxModule"].update(mrsigner="00"),
    "a module twice": lambda body: body["tdxModuleIdentities"].append(body["tdxModuleIdentities"][0]),
    "a module without levels": lambda body: body["tdxModuleIdentities"][0].update(tcbLevels=[]),
    "a module of unknown status": lambda body: body["tdxModuleIdentities"][0]["tcbLevels"][0].update(
        tcbStatus="SWHardeningNeeded"
    ),
    "no number": lambda body: body.pop("tcbEvaluationDataNumber"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_tcb_info_that_is_signed_and_makes_no_sense(lab: Lab, name: str) -> None:
    try:
        document = changed(lab, "tdx", CHANGES[name])
        with pytest.raises(EndorsementMalformed) as caught:
            tcb_info.parse(document)
    except EndorsementMalformed as error:  # already what it says of itself
        assert error.code == "tcb_info_malformed"
    else:
        assert caught.value.code == "tcb_info_malformed"


def test_a_module_in_tcb_info_for_sgx(lab: Lab) -> None:
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "00" * 8}
    with pytest.raises(EndorsementMalformed):
        tcb_info.parse(changed(lab, "sgx", lambda body: body.update(tdxModule=module)))


def test_version_2_needs_all_components(lab: Lab) -> None:
    def version_2(body: dict[str, Any]) -> None:
        body.pop("id")
        body.update(
            version=2, tcbLevels=[{"tcb": {"pcesvn": 1}, "tcbDate": "2026-02-11T00:00:00Z", "tcbStatus": "Revoked"}]
        )

    with pytest.raises(EndorsementMalformed):
        tcb_info.parse(changed(lab, "sgx", version_2))


IDENTITIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "version 1": lambda body: body.update(version=1),
    "no levels": lambda body: body.update(tcbLevels=[]),
    "a long mask": lambda body: body.update(miscselectMask="FF" * 5),
    "an unknown status": lambda body: body["tcbLevels"][0].update(tcbStatus="ConfigurationNeeded"),
    "a large product": lambda body: body.update(isvprodid=65536),
    "no signer": lambda body: body.pop("mrsigner"),
    "a date that is none": lambda body: body.update(nextUpdate="2026-06-01 00:00:00Z"),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_an_identity_that_is_signed_and_makes_no_sense(lab: Lab, name: str) -> None:
    collateral = lab.forge.collateral("sgx")
    assert collateral.qe_identity is not None
    body = json.loads(collateral.qe_identity.text)
    IDENTITIES[name](body)
    with pytest.raises(EndorsementMalformed) as caught:
        qe_identity.parse(signed(lab, json.dumps(body).encode(), "enclaveIdentity"))
    assert caught.value.code == "qe_identity_malformed"


def test_a_name_that_comes_twice_inside_what_is_signed(lab: Lab) -> None:
    """Refused although Intel's key signed it: two readers could read two things."""
    for name, parse in (("tcbInfo", tcb_info.parse), ("enclaveIdentity", qe_identity.parse)):
        collateral = lab.forge.collateral("sgx")
        part = collateral.tcb_info if name == "tcbInfo" else collateral.qe_identity
        assert part is not None
        for place, extra in (
            (b'"tcbDate"', b'"tcbStatus":"Revoked","tcbDate"'),
            (b'"version"', b'"version":3,"version"'),
        ):
            with pytest.raises(EndorsementMalformed):
                parse(signed(lab, part.text.replace(place, extra, 1), name))


def test_nesting_without_end(lab: Lab) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for text in (b'{"tcbInfo":' + deep + b',"signature":"' + b"00" * 64 + b'"}', b'{"tcb_info":' + deep + b"}"):
        with pytest.raises(EndorsementMalformed):
            documents.read(EndorsementSet(documents=[text]))
    with pytest.raises(EndorsementError):
        tcb_info.parse(signed(lab, b'{"id":"SGX","x":' + deep + b"}"))
    with pytest.raises(EndorsementMalformed):
        documents.read(EndorsementSet(documents=[b'{"tcb_info":"' + b"x" * signed_json.MAX_SIZE + b'"}']))


def test_documents_of_others_are_passed_over(lab: Lab) -> None:
    given = EndorsementSet(documents=[b"{}", b"<rim/>", b"not JSON", b'{"rim":{}}'])
    assert documents.read(given).signed == ()


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["tcbInfo", "signature", "tcb_info", "x"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_json_is_collateral_or_malformed(value: object) -> None:
    for text in (
        json.dumps(value),
        json.dumps({"tcbInfo": value, "signature": "00" * 64}),
        json.dumps({"tcb_info": value}),
    ):
        try:
            for document in documents.read(EndorsementSet(documents=[text.encode()])).signed:
                tcb_info.parse(document)
        except EndorsementMalformed:
            pass


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 3000), st.sampled_from(["tcbInfo", "enclaveIdentity"]))
def test_any_bytes_in_collateral(garbage: bytes, place: int, name: str) -> None:
    text = _TEXTS[name]
    place %= len(text)
    broken = text[:place] + garbage + text[place + len(garbage) :]
    with contextlib.suppress(EndorsementMalformed):
        (tcb_info.parse if name == "tcbInfo" else qe_identity.parse)(Signed.of(name, broken, bytes(64)))


def _texts() -> dict[str, bytes]:
    from adyton.devtee.dcap import DcapForge

    collateral = DcapForge.new(NOW).collateral("tdx")
    assert collateral.tcb_info is not None
    assert collateral.qe_identity is not None
    return {"tcbInfo": collateral.tcb_info.text, "enclaveIdentity": collateral.qe_identity.text}


_TEXTS = _texts()


# Several sets


def test_the_newest_fresh_set_of_this_platform_is_taken(lab: Lab, kind: str) -> None:
    room = "sgx" if kind == "sgx" else "tdx"

    def made(number: int, status: str, **more: Any) -> tuple[bytes, ...]:
        numbered = {"tcbEvaluationDataNumber": number}
        return lab.forge.collateral(
            room, levels=lab.forge.levels(room, (status,)), info=numbered | more, identity=numbered
        ).blobs()

    wanted = made(20, "SWHardeningNeeded")
    others = [
        made(19, "UpToDate"),
        made(30, "UpToDate", nextUpdate="2026-06-01T11:00:00Z"),
        made(31, "UpToDate", issueDate="2026-06-02T00:00:00Z"),
        made(40, "UpToDate", fmspc="00906ED50000"),
        made(41, "UpToDate", pceId="0001"),
        lab.forge.collateral("tdx" if room == "sgx" else "sgx", info={"tcbEvaluationDataNumber": 50}).blobs(),
    ]
    for order in ([wanted, *others], [*others, wanted], [*others[::-1], wanted]):
        given = EndorsementSet.parse([blob for blobs in order for blob in blobs])
        claims = lab.verify(lab.quote(kind), endorsements=given).claims
        assert (claims["tcb_status"], claims["tcb_evaluation_data_number"]) == ("SWHardeningNeeded", 20)
        assert claims["qe_evaluation_data_number"] in {20, 30, 31, 40, 41}  # whose own dates are good


def test_what_nobody_signed_does_not_count_among_several(lab: Lab, stranger: Lab) -> None:
    good = lab.forge.collateral("sgx", info={"tcbEvaluationDataNumber": 20}).blobs()
    forged = stranger.forge.collateral("sgx", info={"tcbEvaluationDataNumber": 99})
    assert forged.tcb_info is not None
    given = EndorsementSet.parse([forged.tcb_info.document(), *good])
    assert lab.verify(lab.quote(), endorsements=given).claims["tcb_evaluation_data_number"] == 20


def test_signing_certificates_issued_again_for_one_key(lab: Lab) -> None:
    """As Intel's was three times: the valid one counts, wherever it stands."""
    key = lab.forge.tcb_signing.key
    old = make_tcb_signing(lab.forge.root, NOW, key=key, life=timedelta(minutes=30))
    early = make_tcb_signing(lab.forge.root, NOW + timedelta(days=1), key=key)
    more = [holder.certificate.public_bytes(Encoding.DER) for holder in (old, early)]
    blobs = lab.forge.collateral("sgx").blobs()
    for order in ([*more, *blobs], [*blobs, *more]):
        assert lab.verify(lab.quote(), endorsements=EndorsementSet.parse(order)).claims["tcb_status"] == "UpToDate"


def test_a_root_issued_again_for_one_key(lab: Lab, kind: str) -> None:
    """Intel's root is about in two issues: the quote may carry one, the collateral the other."""
    room = "sgx" if kind == "sgx" else "tdx"
    again = make_root(NOW, key=lab.forge.root.key, life=timedelta(days=40))
    quote = replace(lab.forge, root=again).quote(lab.quote(kind).body)
    assert lab.verify(quote, lab.forge.collateral(room)).claims["tcb_status"] == "UpToDate"
    assert lab.verify(lab.quote(kind), replace(lab.forge, root=again).collateral(room)).tee == room


def test_members_that_are_unknown_are_told(lab: Lab) -> None:
    info = lab.forge.collateral("sgx", info={"tdxModule2": {}}, identity={"newRule": 1})
    assert {"tcb_info.tdxModule2", "qe_identity.newRule"} <= set(lab.verify(lab.quote(), info).unchecked)
    level = Level(lab.forge.platform.components, 13)
    body = level.body()
    body["tcb"]["microcode"] = 9
    told = lab.verify(lab.quote(), lab.forge.collateral("sgx", info={"tcbLevels": [body]})).unchecked
    assert "tcb_info.microcode" in told
    modules = [{"id": "TDX_01", "mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}]
    modules[0] |= {"tcbLevels": [ModuleLevel(5).body()], "mrseam": "00" * 48}  # type: ignore[dict-item]  # a list
    told = lab.verify(lab.quote("td10"), lab.forge.collateral("tdx", info={"tdxModuleIdentities": modules})).unchecked
    assert "tcb_info.mrseam" in told


def test_real_collateral_has_nothing_unknown(vectors: Path) -> None:
    found = [*vectors.glob("dcap-collateral/*.json"), *vectors.glob("dcap-synthetic/*.json")]
    assert len(found) >= 30
    for path in found:
        for document in documents.read(EndorsementSet(documents=[path.read_bytes()])).signed:
            parsed = (tcb_info.parse if document.name == "tcbInfo" else qe_identity.parse)(document)
            assert parsed.unknown == (), path


def test_a_key_that_is_not_p256_signs_nothing(lab: Lab) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    from adyton.crypto.x509 import Certificate
    from adyton.tee.dcap.collateral import _is_signed

    other: Any = ec.generate_private_key(ec.SECP384R1())
    holder = make_tcb_signing(lab.forge.root, NOW, key=other)
    certificate = Certificate(holder.certificate.public_bytes(Encoding.DER))
    assert not _is_signed(signed(lab, b"{}"), certificate)
    assert new_key() is not None
