"""The file that names back ends: what is refused, with the name of the entry, and what it gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import ConfigError, NotFound, Unavailable
from adyton.stores.backends.configured import Backends
from adyton.stores.backends.options import MAX_FILE, VaultOptions, parse, read

VAULT = '[backends.v]\nkind = "vault"\nurl = "https://v"\ntoken_file = "t"\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("\xff", "TOML"),
        ("[backends", "TOML"),
        ("x = " + "[" * 5000, "TOML"),
        ("x = " + "1" * 5000, "TOML"),
        ("[backend.v]\nkind = 'vault'", "backend"),
        ("[backends.v]\nkind = 'floppy'", "$.backends[...].kind"),
        ("[backends.v]\nurl = 'https://v'", "kind"),
        (VAULT + "tokn_file = 'x'", "tokn_file"),
        (VAULT + "seconds = 'long'", "seconds"),
        (VAULT + "seconds = 0", "v"),
        (VAULT + "calls = 0", "v"),
        (VAULT + "tenants = []", "v"),
        (VAULT.replace("backends.v", 'backends."../v"'), "../v"),
        (VAULT.replace("backends.v", "backends.resource"), "resource"),
        ("[plugins.auth]\nendpoint = 'https://x'", "auth"),
        ("[plugins.p]\n", "endpoint"),
        ("backends = 3", "backends"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode("latin-1"), Path("/etc/adyton/backends.toml"))
    assert caught.value.code == "backends_file_invalid" and caught.value.field == "/etc/adyton/backends.toml"
    assert named in f"{caught.value.message} {caught.value.got}"


@given(st.binary(max_size=200))
def test_any_bytes_give_options_or_that_error(content: bytes) -> None:
    try:
        parse(content, Path("/x"))
    except ConfigError as error:
        assert error.code == "backends_file_invalid"


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "backends.toml"
    path.write_text(VAULT)
    path.chmod(0o644)
    given_ = read(path).backends["v"]
    assert isinstance(given_, VaultOptions) and given_.token_file == str(tmp_path / "t") and given_.ca_file == ""
    path.chmod(0o664)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.code == "backend_config_exposed"
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "none")
    assert caught.value.code == "backend_file_unreadable"
    with pytest.raises(ConfigError):
        parse(b"#" * (MAX_FILE + 1), path)


def test_back_ends_are_for_their_tenants(tmp_path: Path) -> None:
    path = tmp_path / "backends.toml"
    path.write_text(VAULT + 'tenants = ["acme"]\n')
    path.chmod(0o600)
    backends = Backends.read(str(path))
    assert backends.of("acme", "v").kind == "vault"
    for tenant, name in (("acme2", "v"), ("acme", "w")):
        with pytest.raises(NotFound) as absent:
            backends.of(tenant, name)
        assert absent.value.code == "backend_absent"
        with pytest.raises(Unavailable):
            backends.configured_for(tenant, name)
    assert backends.check("acme2") == []
    [view] = backends.check("acme")
    assert not view.ok and view.code == "backend_file_unreadable"  # its token file is not there
    with pytest.raises(ConfigError):
        backends.key_holder("nobody")
    backends.close()
    assert Backends.read("").check() == []
