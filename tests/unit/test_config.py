"""Sources of settings, their order, and what is said about mistakes."""

import argparse
from pathlib import Path

import pytest

from tbfast import config
from tbfast.config import ConfigError


def load(*flags: str, env: dict[str, str] | None = None) -> config.Loaded:
    parser = argparse.ArgumentParser()
    config.add_config_flags(parser)
    return config.load(parser.parse_args(flags), env or {})


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "tbfast.toml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults_need_nothing() -> None:
    loaded = load()
    assert loaded.config == config.Config()
    assert set(loaded.origins.values()) == {"default"}
    assert config.load(None, {}).config == config.Config()


def test_each_source_overrides_the_weaker_ones(write) -> None:
    file = write(
        "workers = 2\n[mqtt]\nbind_port = 1\n[http]\nbind_port = 2\n[log]\nlevel='debug'\n"
    )
    env = {
        "MQTT_BIND_PORT": "11",
        "TBFAST_MQTT__BIND_PORT": "12",
        "HTTP_BIND_PORT": "21",
        "JSON_TYPE_CAST_ENABLED": "false",
    }
    loaded = load("--config", file, "--mqtt-port", "13", env=env)
    assert loaded.config.workers == 2
    assert loaded.config.mqtt.bind_port == 13
    assert loaded.config.http.bind_port == 21
    assert loaded.config.log.level == "debug"
    assert loaded.config.json.type_cast_enabled is False
    assert loaded.origins["workers"] == f"file {file}"
    assert loaded.origins["mqtt.bind_port"] == "flag --mqtt-port"
    assert loaded.origins["http.bind_port"] == "environment HTTP_BIND_PORT"
    assert load("--config", file, env=env).config.mqtt.bind_port == 12


def test_file_named_by_the_environment(write) -> None:
    assert (
        load(env={"TBFAST_CONFIG": write("durability = 'process'")}).config.durability == "process"
    )


def test_host_fills_addresses_that_are_not_set_themselves() -> None:
    loaded = load("--host", "127.0.0.1", env={"HTTP_BIND_ADDRESS": "::1"})
    assert loaded.config.mqtt.bind_address == "127.0.0.1"
    assert loaded.config.http.bind_address == "::1"
    assert loaded.origins["mqtt.bind_address"] == "host, flag --host"


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"TBFAST_MQTT__BINDPORT": "1"}, "TBFAST_MQTT__BIND_PORT"),
        ({"TBFAST_WORKER": "1"}, "TBFAST_WORKERS"),
        ({"TBFAST_WORKERS": "many"}, "TBFAST_WORKERS = 'many'"),
        ({"MQTT_BIND_PORT": "70000"}, "MQTT_BIND_PORT = '70000'"),
        ({"TBFAST_DURABILITY": "maybe"}, "disk = power loss"),
        ({"TBFAST_DATA_DIR": ""}, "TBFAST_DATA_DIR"),
        (
            {"ACTORS_MAX_CONCURRENT_SESSION_PER_DEVICE": "2"},
            "ACTORS_MAX_CONCURRENT_SESSION_PER_DEVICE = '2': .* only 1 is served",
        ),
        ({"TB_TRANSPORT_ACTIVITY_REPORTING_STRATEGY": "SOME"}, "FIRST_AND_LAST = both"),
    ],
)
def test_bad_environment_names_the_variable(env: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(env=env)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("worker = 1", "did you mean workers"),
        ("[mqtt]\nbindport = 1", "mqtt.bindport .* mqtt.bind_port"),
        ("mqtt = 1", "unknown setting mqtt"),
        ("[workers]\nx = 1", "workers in"),
        ("workers = '2'", "Expected `int`"),
        ("workers = true", "Expected `int`"),
        ("= 1", "not valid TOML"),
    ],
)
def test_bad_file_names_the_key(write, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load("--config", write(text))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load("--config", str(tmp_path / "none.toml"))


def test_build_and_test_variables_are_no_settings() -> None:
    load(env={"TBFAST_WERROR": "1", "TBFAST_TEST_SEED": "7"})


def test_every_setting_is_documented_and_reachable() -> None:
    for path, setting in config.SETTINGS.items():
        assert setting.description
        assert config.value_of(config.Config(), path) == setting.default
        assert setting.env == "TBFAST_" + path.upper().replace(".", "__")


def test_workers_leave_a_core_to_the_controller() -> None:
    assert [config.Config().worker_count(cores) for cores in (1, 2, 8)] == [1, 1, 7]
    assert config.Config(workers=3).worker_count(8) == 3
