"""Messages in which CoCo's tools register reference values: any object is a message or refused, and says which member."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import DocumentInvalid
from adyton.protocol import reference_messages
from adyton.protocol.providers import KINDS
from adyton.protocol.reference_messages import SAMPLE, TYPES, Message

GOOD: dict[str, Any] = {"version": "0.1.0", "type": "corim", "payload": "AAEC"}
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "version": st.just("0.1.0") | _ANY,
            "type": st.sampled_from(TYPES) | _ANY,
            "payload": st.text() | _ANY,
            "provider": _ANY,
            "state": st.just("stable") | _ANY,
        },
    )
)
def test_any_object_is_a_message_or_refused(message: dict[str, Any]) -> None:
    try:
        found = reference_messages.read(message)
        content = found.values() if found.kind == SAMPLE else found.document()
    except DocumentInvalid as error:
        assert error.code == "reference_message"
        return
    assert found.kind in {SAMPLE, *KINDS} and content


@pytest.mark.parametrize("member", ["version", "type", "payload"])
def test_what_must_be_there(member: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        reference_messages.read({name: value for name, value in GOOD.items() if name != member})
    assert caught.value.field == member


@pytest.mark.parametrize("payload", ["", " ", "A", "AA==A", "é", "AAEC\x00", "-_-_"])
def test_payloads_that_are_no_document(payload: str) -> None:
    with pytest.raises(DocumentInvalid):
        reference_messages.read({**GOOD, "payload": payload}).document()


def test_a_document_is_its_text_or_its_base64() -> None:
    assert reference_messages.read(GOOD) == Message("corim", "AAEC")
    assert reference_messages.read(GOOD).document() == b"\x00\x01\x02"
    assert reference_messages.read({**GOOD, "type": "rim", "payload": " <a/>\n"}) == Message("swid", " <a/>\n")
    assert reference_messages.read({**GOOD, "type": "rim", "payload": " <a/>\n"}).document() == b"<a/>"
    assert reference_messages.read({**GOOD, "type": "in-toto", "payload": '{"version":"0.9"}'}).document()[:1] == b"{"
    named = reference_messages.read({**GOOD, "provider": "vendor", "state": "candidate", "other": 1})
    assert (named.provider, named.state) == ("vendor", "candidate")


def test_values_by_hand_have_no_provider() -> None:
    with pytest.raises(DocumentInvalid):
        reference_messages.read({"version": "0.1.0", "type": "sample", "payload": "e30=", "provider": ""})
    assert reference_messages.read({"version": "0.1.0", "type": "sample", "payload": "eyJhIjoxfQ=="}).values() == {
        "a": 1
    }
