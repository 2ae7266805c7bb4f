"""What strangers are told at the services' edge."""

from __future__ import annotations

import pytest

from adyton.broker.services import faults
from adyton.errors import AdytonError, ConfigError, EvidenceError, NotPermitted, PlatformError, Unavailable


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("the database cannot be reached: db.internal:5432, user adyton", code="database_unreachable"),
        PlatformError("cannot open /srv/secret/store", code="store_unusable"),
        ConfigError("/etc/adyton/ca.pem cannot be read", code="endorsements_unreadable"),
    ],
)
def test_what_ails_the_service_is_nobodys_business(error: AdytonError) -> None:
    assert faults.statuses(error) == ("UNAVAILABLE", 503)
    answer = faults.answer(error)
    assert answer.body == f"the service cannot do this now [{error.code}]".encode() == faults.text(error).encode()


def test_what_ails_the_evidence_is_said() -> None:
    error = EvidenceError("the chip is another", code="chip_other", got="aa")
    assert faults.text(error) == "the chip is another [chip_other]"
    assert faults.statuses(error) == ("ABORTED", 500)
    assert faults.statuses(NotPermitted("no", code="no")) == ("UNAUTHENTICATED", 401)
