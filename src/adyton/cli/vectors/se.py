"""Cases of IBM Secure Execution: host key documents, and exchange files."""

from __future__ import annotations

from adyton.cli.vectors.case import Case, Got


def _host_key(case: Case, got: Got) -> None:
    from adyton.tee.se.host_key import verify_host_key

    (document,) = case.endorsements("hkd").certificates
    key = verify_host_key(
        document,
        case.endorsements("signing", "intermediate", "root", "crl"),
        now=case.now,
        anchors=case.anchors("root"),
        revocation=case.revocation(got),
    )
    got.claims["key_hash"] = key.key_hash.hex()


def _exchange(case: Case, got: Got) -> None:
    from adyton import tee
    from adyton.tee.se.exchange import Exchange

    data = case.files["exchange"]
    file = Exchange.parse(data)
    if file.encode() != data:
        got.members["outcome"] = "does not encode to itself"
    got.claims |= tee.show("se", data)


RUNNERS = {
    "host-key-document": _host_key,
    "attestation-exchange-parse": _exchange,
}
