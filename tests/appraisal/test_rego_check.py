from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.appraisal import policies
from adyton.appraisal.builtins import ALLOWED
from adyton.appraisal.rego_check import MAX_SIZE, RESOURCE_DATA, AcceptedPolicy, check
from adyton.errors import PolicyInvalid

HEAD = "package policy\nimport rego.v1\n"


def refused(body: str, code: str = "policy_refused") -> PolicyInvalid:
    with pytest.raises(PolicyInvalid) as caught:
        check(HEAD + body)
    assert caught.value.code == code, caught.value.as_dict()
    assert caught.value.hint
    return caught.value


FORBIDDEN = [
    "opa.runtime", "http.send", "time.now_ns", "rand.intn", "uuid.rfc4122", "uuid.parse", "trace", "print", "net.lookup_ip_addr",
    "rego.parse_module", "rego.metadata.chain", "io.jwt.decode", "io.jwt.verify_es256", "providers.aws.sign_req",
    "crypto.x509.parse_certificates", "json.patch", "yaml.unmarshal", "graph.reachable", "internal.member_2", "strings.render_template",
]  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize(
    "call",
    [
        "{}()",
        "{}({{}})",
        "{} ()",
        "{}\n()",
        "{} # a comment\n()",
        "[x | x := {}()]",
        "count({}())",
        "f({}())",
        "1 + {}().a",
        "{}().commit",
        "{{ {}() }}",
    ],
)
def test_a_forbidden_builtin_is_found_however_it_is_written(name: str, call: str) -> None:
    refused(f"f(x) := x\ntrust_claims := {call.format(name)}\n", "policy_builtin_forbidden")


@pytest.mark.parametrize(
    "body",
    [
        'x := opa["runtime"]()',
        "x := opa[`runtime`]()",
        'x := opa["runtime"] ()',
        "x := opa [ `runtime` ]\n()",
        "x := time[y].now_ns()",
        'x := data["policy"]["f"](1)',
        'x := ("opa.runtime")()',
        "x := {1}()",
        'x := "count"([])',
        "x := true()",
    ],
)
def test_calls_of_computed_names_are_refused(body: str) -> None:
    refused(body)


def test_spaced_dots_do_not_hide_a_call() -> None:
    refused("x := opa . runtime()", "policy_builtin_forbidden")
    refused("x := opa.\n  runtime()", "policy_builtin_forbidden")
    refused("x := count(1) + opa.runtime()", "policy_builtin_forbidden")


@pytest.mark.parametrize("body", ['x := $"{opa.runtime()}"', "x := $`{opa.runtime()}`", 'x := $"plain"'])
def test_template_strings_are_refused(body: str) -> None:
    refused(body)


@pytest.mark.parametrize(
    "body",
    [
        "x := count([]) with count as opa.runtime",
        "x := 1 with input as {}",
        "x := 1 if { y with data.reference as {} }",
        "import data.policy as p",
        "import data.other",
        "import input.snp as http",
        "import input",
        "import rego.v1 as r",
        "import future.keywords.in as data",
        "import future.keywords[x]",
        "import rego.v2",
        "package other",
    ],
)
def test_nothing_can_be_renamed_or_replaced(body: str) -> None:
    refused(body)


@pytest.mark.parametrize(
    "body",
    ["x := data", "x := data.other", "x := data[y]", "x := data.policy", "x := data.policy[y]", "x := [data | 1]", 'x := data["secrets"].a',
     "x := data.plugin", "x := data.\n other", "x := walk(data)", "data.reference.x := 1 if { data }"],
)  # fmt: skip
def test_only_supplied_data_can_be_read(body: str) -> None:
    refused(body)


@pytest.mark.parametrize("name", ["trace", "print", "all", "plus", "query_reference_value"])
def test_functions_cannot_take_the_name_of_a_builtin(name: str) -> None:
    refused(f"{name}(x) := 1\ntrust_claims := 2\n")
    refused(f"default {name}(_) := 1\n")


@pytest.mark.parametrize(
    "body", ["query_reference_value := 1", "x := query_reference_value", "x := [query_reference_value]"]
)
def test_the_reference_function_can_only_be_called(body: str) -> None:
    refused(body)


@pytest.mark.parametrize(
    ("opening", "closing"), [("(", ")"), ("[", "]"), ('{"a": ', "}"), ("[x | x := ", "]"), ("count([", "])")]
)
@pytest.mark.parametrize("depth", [65, 2000, 20000])
def test_deep_nesting_is_refused(opening: str, closing: str, depth: int) -> None:
    code = "policy_too_large" if depth * len(opening + closing) > MAX_SIZE else "policy_too_deep"
    text = "x := " + opening * depth + "1" + closing * depth
    with pytest.raises(PolicyInvalid) as caught:
        check(HEAD + text)
    assert caught.value.code in {code, "policy_too_large"}


def test_nesting_to_the_limit_is_accepted() -> None:
    check(HEAD + "x := " + "[" * 64 + "]" * 64)


@pytest.mark.parametrize(
    "body",
    ["x := [1", "x := 1]", "x := (1]", "x := }{", 'x := "open', "x := `open", 'x := "\\q"', 'x := "\\ud800"', 'x := "a\nb"',
     "x := 1 ; é := 2", "x := 1\0", "x := 1 \u2028", 'x := "\\u0000"', "x := 01", "x := 1a", "x := 0x10", "x := @y", "x := a ? b", "x := 'a'"],
)  # fmt: skip
def test_what_is_not_understood_is_refused(body: str) -> None:
    refused(body)


@pytest.mark.parametrize(
    "text", ["", "x := 1", "package other\nx := 1", "package policy.sub\nx := 1", '"package" policy', "# c\nx := 1"]
)
def test_a_policy_is_of_one_package_from_its_first_word(text: str) -> None:
    with pytest.raises(PolicyInvalid):
        check(text)


def test_size_is_limited() -> None:
    check(HEAD + "#" + "a" * (MAX_SIZE - len(HEAD) - 1))
    with pytest.raises(PolicyInvalid) as caught:
        check(HEAD + "#" + "a" * (MAX_SIZE - len(HEAD)))
    assert caught.value.code == "policy_too_large"
    refused("x := " + "1+" * 30_000 + "1", "policy_too_large")


# --- what is accepted


def paths(body: str) -> set[tuple[str | int, ...]] | None:
    found = check(HEAD + body).paths
    return set(found) if found is not None else None


def test_the_default_policies_are_accepted_and_can_be_remembered() -> None:
    for text in policies.DEFAULTS.values():
        accepted = check(text)
        assert accepted.may_be_remembered and accepted.paths
    assert check(policies.RESOURCE_ALLOW_AFFIRMING, RESOURCE_DATA).calls == {"count"}


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_every_allowed_builtin_is_accepted(name: str) -> None:
    assert check(f"{HEAD}x := {name}(1)\n").calls == {name}


def test_calls_of_own_functions_are_accepted() -> None:
    check(HEAD + "good(x) if x == 1\nx := data.policy.good(1)\ny := good(2)\n")
    check(HEAD + "default good(_) := false\nx := good(1)\n")
    refused("x := missing(1)", "policy_builtin_forbidden")
    refused("x := data.policy.missing(1)", "policy_builtin_forbidden")


def test_static_paths_are_found() -> None:
    assert paths('x := input.a.b == input["c d"][0].e') == {("a", "b"), ("c d", 0, "e")}
    assert paths("x := input . a\n.b") == {("a", "b")}
    assert paths("x := {y.input: 1}") == set()
    assert paths('x := "input.a" # input[y]') == set()


@pytest.mark.parametrize("body", ["x := input", "x := input[y]", "x := input.a[y]", "x := input.a[_].b", "x := count(input)", "x := walk(input)",
                                  "x := input[1.5]", "x := input.a[1+1]", "some i; x := input.a[i]", "x := input[input.a]"])  # fmt: skip
def test_a_computed_path_is_never_remembered(body: str) -> None:
    assert paths(body) is None


@pytest.mark.parametrize(
    "body",
    ["x if { input.a }", "x if { input.a; y }", "x if {\n input.a\n y == 1\n}", "x := 1 if {\n y\n input.a\n}", "x if {\n f(1)\n input.a\n not y\n}\nf(x) := 1"],
)  # fmt: skip
def test_a_place_that_stands_alone_is_a_test(body: str) -> None:
    found = check(HEAD + body)
    assert found.tests == (("a",),) and found.paths == ()


@pytest.mark.parametrize(
    "body",
    ["x := {\n input.a\n}", "x := {input.a}", "x := [y |\n input.a\n]", "x if {\n y == \n input.a\n}", "x if {\n input.a\n == y\n}", "x if { not input.a }",
     "x if {\n input.a\n in y\n}", "x if {\n input.a\n[0]\n}", "x if {\n some y in\n input.a\n}", "x if input.a", "x := {y: 1 |\n y := 1\n input.a\n}",
     "x if { count({\n input.a\n}) == 1 }", "x if { input.a == 1 }", "x if { y := input.a }", "x if {\n y := input.a\n z }", "x if {\n input.a\n + 1\n}"],
)  # fmt: skip
def test_a_place_whose_value_counts_is_a_path(body: str) -> None:
    found = check(HEAD + body)
    assert found.tests == () and found.paths == (("a",),)


def test_too_many_paths_are_not_remembered() -> None:
    assert paths("x := [" + ",".join(f"input.a{n}" for n in range(201)) + "]") is None


def test_resource_policies_read_what_they_are_given() -> None:
    check(HEAD + 'x := data["resource-path"]\ny := data.plugin\nz := data.query.a\n', RESOURCE_DATA)
    refused('x := data["resource-path"]')


def engine_text(body: str) -> str:
    return check(HEAD + body).engine_text[len(HEAD) :].rstrip("\n")


def test_strings_become_canonical_and_comments_go() -> None:
    assert engine_text(r'x := "\u00e9\/\"" # "') == 'x := "é/\\""'
    assert engine_text('x := `a"b\\\n`') == r'x := "a\"b\\\n"'


def test_input_and_data_are_put_where_the_engine_finds_them() -> None:
    assert (
        engine_text("x := input.a[data.reference.b] + data.policy.c")
        == "x := input.i.a[input.d.reference.b] + data.policy.c"
    )


def test_the_digest_is_of_the_text_as_it_was_given() -> None:
    one, two = check(HEAD + "x := 1"), check(HEAD + "x := 1 # c")
    assert one.engine_text.strip() == two.engine_text.strip() and one.digest != two.digest
    assert "x := 1" not in repr(one)


# --- properties

PIECES = st.sampled_from(
    ["package policy", "import rego.v1", "\n", " ", "x", "input", "data", ".", "[", "]", "(", ")", "{", "}", "reference", "policy", "with",
     "as", '"a"', "`b`", "#c\n", ":=", "==", "|", "opa", "runtime", "count", "1", "if", "not", "some", "$", "\\", '"', "`", "é", "default"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map(" ".join) | st.text(max_size=200))
def test_any_text_is_accepted_or_refused(text: str) -> None:
    with contextlib.suppress(PolicyInvalid):
        check(HEAD + text)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_what_is_accepted_is_accepted_again_after_rewriting(text: str) -> None:
    try:
        accepted: AcceptedPolicy = check(HEAD + text)
    except PolicyInvalid:
        return
    assert "opa.runtime(" not in accepted.engine_text.replace(" ", "")
    again = check(accepted.engine_text)
    assert again.calls == accepted.calls
