"""Home, configuration, secrets and names."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borgcube.core import config, home, secrets
from borgcube.core.errors import ConfigurationError, InvalidInput
from borgcube.core.model.names import check_name


def test_init_makes_a_private_home_and_may_be_repeated(tmp_path: Path):
    place = home.init_home(tmp_path / "h")
    key = secrets.key_file(place).read_bytes()
    home.init_home(place)
    assert secrets.key_file(place).read_bytes() == key
    assert place.stat().st_mode & 0o777 == 0o700
    assert secrets.key_file(place).stat().st_mode & 0o777 == 0o600


def test_init_makes_no_new_key_for_an_existing_store(tmp_path: Path):
    place = home.init_home(tmp_path / "h")
    (place / "store" / "borgcube.fs").touch()
    secrets.key_file(place).unlink()
    with pytest.raises(ConfigurationError, match="missing"):
        home.init_home(place)


def test_a_long_home_gets_short_private_sockets(tmp_path: Path):
    place = tmp_path / ("x" * 100)
    place.mkdir()
    directory = home.runtime_dir(place)
    try:
        assert len(str(directory)) + home.LONGEST_NAME <= home.MAX_SOCKET_PATH
        assert directory.stat().st_mode & 0o777 == 0o700
        assert directory == home.runtime_dir(place) != home.runtime_dir(tmp_path / ("y" * 100))
    finally:
        directory.rmdir()


def test_a_symbolic_link_is_no_private_directory(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError):
        home.private_directory(tmp_path / "link")


def test_the_sample_is_valid_and_says_the_defaults(tmp_path: Path):
    assert config.parse(tomllib.loads(config.sample()), path=tmp_path) == config.Config()
    live = re.sub(r"^# (\w+ = )", r"\1", config.sample(), flags=re.M)
    assert config.parse(tomllib.loads(live), path=tmp_path) == config.Config()


@pytest.mark.parametrize(("text", "named"), [
    ("[jobs]\nmax_runing = 1", "jobs.max_runing"),
    ("[jobs]\nmax_running = '1'", "jobs.max_running"),
    ("[jobs]\nmax_running = true", "jobs.max_running"),
    ("[jobs]\nmax_running = 0", "jobs.max_running"),
    ("[plugins]\ndisabled = [1]", "plugins.disabled"),
    ("[nothing]", "nothing"),
    ("jobs = 1", "jobs"),
    ("[", "TOML"),
])  # fmt: skip
def test_a_configuration_error_names_file_and_key(tmp_path: Path, text: str, named: str):
    path = tmp_path / config.FILE_NAME
    path.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        config.load(tmp_path)
    assert str(path) in str(error.value) and named in str(error.value)


def test_a_sealed_secret_opens_only_with_its_key_and_context(tmp_path: Path):
    key = secrets.create_master_key(tmp_path)
    sealed = key.seal("s3cret", context="repository a")
    assert b"s3cret" not in sealed
    assert secrets.load_master_key(tmp_path).unseal(sealed, context="repository a") == "s3cret"
    with pytest.raises(ConfigurationError):
        key.unseal(sealed, context="repository b")
    with pytest.raises(ConfigurationError):
        key.unseal(sealed[:-1], context="repository a")


@pytest.mark.parametrize("damage", ["missing", "mode", "short", "binary"])
def test_a_bad_master_key_is_refused_in_words(tmp_path: Path, damage: str):
    secrets.create_master_key(tmp_path)
    path = secrets.key_file(tmp_path)
    if damage == "missing":
        path.unlink()
    elif damage == "mode":
        path.chmod(0o640)
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "short" else b"\xff\0")
    with pytest.raises(ConfigurationError) as error:
        secrets.load_master_key(tmp_path)
    assert error.value.next_step


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True))
def test_good_names_pass(name: str):
    assert check_name(name) == name


@given(st.text(alphabet="a/.\n\0- ;é", max_size=70))
def test_a_name_is_always_a_safe_file_name(name: str):
    try:
        check_name(name)
    except InvalidInput:
        return
    assert "/" not in name and "\n" not in name and name[0] not in ".-" and len(name) <= 64
