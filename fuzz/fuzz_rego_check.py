"""Any text is accepted as a policy or refused with one error; what is accepted holds no call that is not allowed."""

import sys

import atheris

with atheris.instrument_imports(include=["adyton.appraisal"]):
    from adyton.appraisal.builtins import ALLOWED, REFERENCE_FUNCTION
    from adyton.appraisal.rego_check import RESOURCE_DATA, check
    from adyton.errors import PolicyInvalid

PIECES = (
    "package policy\n", "import rego.v1\n", "import ", "input", "data", "reference", "policy", ".", "[", "]", "(", ")", "{", "}", '"a"', "`b`",
    "#c\n", "\n", " ", "opa", "runtime", "http.send", "count", "with ", "as ", "if ", "not ", "some ", "else ", "default ", ":=", "==", "$", "\\",
    '"', "`", "1", "x", "trace", "query_reference_value",
)  # fmt: skip


def one_input(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    if provider.ConsumeBool():
        text = "package policy\n" + provider.ConsumeUnicode(4096)
    else:
        text = "package policy\n" + "".join(
            PIECES[provider.ConsumeIntInRange(0, len(PIECES) - 1)] for _ in range(provider.ConsumeIntInRange(0, 200))
        )
    try:
        accepted = check(text, RESOURCE_DATA)
    except PolicyInvalid as error:
        assert error.code.startswith("policy_")
        return
    assert accepted.calls <= ALLOWED | {REFERENCE_FUNCTION}
    again = check(accepted.engine_text.replace("input.i", "input").replace("input.d.", "data."), RESOURCE_DATA)
    assert again.calls == accepted.calls


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
