"""Reading the configuration file: what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from transom.gateway.config import GIB, MIB, Config, ConfigError, host_and_port, load_config, parse_size

KEY = '[[key]]\naccess = "ALICE"\nsecret = "wonderland"\nowner = "alice"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "transom.toml"
    path.write_text(text)
    return path


def test_no_file_is_all_defaults() -> None:
    assert load_config(None) == Config()
    assert Config().server.host == "127.0.0.1"  # nobody is served from outside unless it is asked for
    assert Config().cluster.redirect == "auto"


def test_the_command_line_comes_before_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[server]\nport = 1\nhost = "::1"\n[[folder]]\nname = "a"\npath = "/a"\n')
    overrides = {"server": {"port": 2}, "cluster": {"targets": 3}, "folder": [{"name": "b", "path": "/b"}]}
    config = load_config(path, overrides)
    assert (config.server.port, config.server.host, config.cluster.targets) == (2, "::1", 3)
    assert [(each.name, each.path) for each in config.folder] == [("a", Path("/a")), ("b", Path("/b"))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1\n", "server.prot: there is no such key"),
        ("[servers]\nport = 1\n", "servers: there is no such key"),
        ("port = 1\n", "port: there is no such key"),
        (KEY + 'name = "x"\n', "key.0.name: there is no such key"),
        ("[server]\nport = 70000\n", "server.port: "),
        ('[server]\nport = "http"\n', "server.port: "),
        ('[server]\nserver = "nginx"\n', "server.server: Input should be 'auto', 'granian' or 'hypercorn'"),
        ("[server]\nshutdown_s = 11\n", "server.shutdown_s: "),
        ('[server]\ntls_key = "/k"\n', "server: Value error, tls_certificate and tls_key go together"),
        ('[cluster]\nredirect = "maybe"\n', "cluster.redirect: "),
        ('[results]\nmax_bytes = "10 GB"\n', "results.max_bytes: Value error, a size is"),
        ("[results]\nmax_bytes = -1\n", "results.max_bytes: "),
        ("[etl]\ntimeout_s = 0\n", "etl.timeout_s: "),
        ('[etl]\npull_listen = "9010"\n', "etl.pull_listen: Value error, an address is HOST:PORT"),
        ('[etl]\npull_listen = "far:70000"\n', "etl.pull_listen: Value error, an address is HOST:PORT"),
        ('[etl]\npull_listen = "[::]:9010"\n', "etl.pull_listen: Value error, services are told this address"),
        (KEY + KEY, "access key 'ALICE' is given twice"),
        ('[[folder]]\nname = "a"\npath = "/a"\n' * 2, "folder 'a' is given twice"),
        ('[[folder]]\nname = "a"\n', "folder.0.path: Field required"),
        ("server = 1\n", "server: "),
        ("key = 1\n", "key: "),
        ("[server\n", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_config(path, {"server": {"port": 1}} if "port" not in text else None)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, "[server]\nprot = 1\n[etl]\nqueue = -1\n"))
    assert len(str(error.value).splitlines()) == 2


def test_a_file_that_cant_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read the config file .*missing\.toml: No such file"):
        load_config(tmp_path / "missing.toml")
    (tmp_path / "latin").write_bytes(b'[server]\nhost = "\xe4"\n')
    with pytest.raises(ConfigError, match="is no TOML"):
        load_config(tmp_path / "latin")


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, KEY))
    assert "wonderland" not in repr(config)
    assert "wonderland" not in config.model_dump_json()
    assert config.key[0].secret.get_secret_value() == "wonderland"
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, KEY.replace("wonderland", "sesame")))
    assert "sesame" not in str(error.value)
    assert "key.0.secret" in str(error.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("12", 12),
        ("5 B", 5),
        ("64KiB", 65536),
        (" 3 MiB ", 3 * MIB),
        ("2 GiB", 2 * GIB),
        ("1 TiB", 1024 * GIB),
    ],
)
def test_sizes_have_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1.5 GiB", "-1", "1 GB", "1 mib", "1 MiB extra", "0x10"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size is"):
        parse_size(text)


def test_addresses_to_listen_at() -> None:
    assert host_and_port("127.0.0.1:9010") == ("127.0.0.1", 9010)
    assert host_and_port("storage.example:0") == ("storage.example", 0)
    assert host_and_port("[fd00::1]:9010") == ("fd00::1", 9010)
