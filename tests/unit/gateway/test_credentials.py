"""Where the access keys come from, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from transom.gateway.config import Config, ConfigError
from transom.gateway.context import ANONYMOUS, Principal
from transom.gateway.credentials import load_credentials

ENV = {"TRANSOM_ACCESS_KEY": "FROMENV", "TRANSOM_SECRET_KEY": "secret-of-env"}
CONFIG = Config.model_validate(
    {
        "key": [
            {"access": "ALICE", "secret": "wonderland", "owner": "alice"},
            {"access": "ALICE2", "secret": "looking-glass", "owner": "alice", "admin": True},
            {"access": "BOB", "secret": "builder-bob", "owner": "bob"},
        ]
    }
)


def test_the_environments_key_is_first_and_an_admins(tmp_path: Path) -> None:
    credentials, made = load_credentials(CONFIG, tmp_path, ENV)
    assert not made
    assert credentials.principal("FROMENV") == Principal("FROMENV", "admin", admin=True)
    assert credentials.first.access == "FROMENV"
    assert credentials.principal("ALICE") == Principal("ALICE", "alice", admin=False)
    assert not any(tmp_path.iterdir())


def test_the_files_first_key_is_an_admins(tmp_path: Path) -> None:
    credentials, _ = load_credentials(CONFIG, tmp_path, {})
    admins = {access: credentials.principal(access).admin for access in ("ALICE", "ALICE2", "BOB")}
    assert admins == {"ALICE": True, "ALICE2": True, "BOB": False}
    assert {credentials.principal(access).owner for access in ("ALICE", "ALICE2")} == {"alice"}
    assert credentials.secret_of("BOB") == "builder-bob"
    assert credentials.secret_of("EVE") is None


def test_no_key_is_the_anonymous_principal(tmp_path: Path) -> None:
    credentials, _ = load_credentials(CONFIG, tmp_path, {})
    assert credentials.principal("") is ANONYMOUS
    assert not ANONYMOUS.owner


@pytest.mark.parametrize("missing", list(ENV))
def test_half_a_key_in_the_environment_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ConfigError, match="go together"):
        load_credentials(Config(), tmp_path, {**ENV, missing: ""})


def test_the_same_key_in_environment_and_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'ALICE' is in the environment and in the config file"):
        load_credentials(CONFIG, tmp_path, {**ENV, "TRANSOM_ACCESS_KEY": "ALICE"})


def test_without_any_a_key_is_made_once_and_kept_for_its_owner_only(tmp_path: Path) -> None:
    first, made = load_credentials(Config(), tmp_path, {})
    again, made_again = load_credentials(Config(), tmp_path, {})
    assert (made, made_again) == (True, False)
    assert first.first == again.first
    assert first.first.admin
    assert len(first.first.secret) >= 32
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    load_credentials(Config(), tmp_path, {})
    path = tmp_path / "credentials.json"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"can be read by others; run: chmod 600 {path}"):
        load_credentials(Config(), tmp_path, {})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"access": "A"}'])
def test_a_damaged_file_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no keys"):
        load_credentials(Config(), tmp_path, {})


def test_secrets_stay_out_of_repr_and_go_to_our_own_processes_only(tmp_path: Path) -> None:
    credentials, _ = load_credentials(CONFIG, tmp_path, {})
    assert "wonderland" not in repr(credentials.first)
    assert [each["secret"] for each in credentials.exposed()] == ["wonderland", "looking-glass", "builder-bob"]
    assert json.dumps(credentials.exposed())
