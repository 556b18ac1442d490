"""Precedence of flag, environment, file and default, for every setting and every type."""

import argparse
from dataclasses import fields

import pytest

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.settings.fields import PROFILES, Settings
from neucodec_streaming.server.settings.sources import Resolved, add_flags, check_files, resolve, table
from neucodec_streaming.server.settings.spec import FLAG, entry_of, kind_of

NONE: dict[str, str] = {}
EXAMPLES = {
    "model": ("other", "other"),
    "dtype": ("bfloat16", "bfloat16"),
    "profiles": ("low,mine=4:6", {"low": PROFILES["low"], "mine": (4, 6)}),
    "batch_sizes": ("1,3", (1, 3)),
    "tls_cert": ("a.pem", "a.pem"),
    "trusted_proxies": ("10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
    "mqtt_hermes_sites": ("kitchen,hall", ("kitchen", "hall")),
    "allow_origins": ("https://a.example", ("https://a.example",)),
    "api_keys": ("one,two", ("one", "two")),
    "web": ("false", False),
    "cuda_graphs": ("off", "off"),
    "float32_products": ("tf32", "tf32"),
    "kinds": ("decode", ("decode",)),
    "speech_lm_url": ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
    "speech_lm_api": ("chat", "chat"),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
}
"""As text and as parsed; `example` has those of plain numbers and texts."""


def example(item) -> tuple[str, object]:
    if item.name in EXAMPLES:
        return EXAMPLES[item.name]
    return {int: ("7", 7), float: ("2.5", 2.5), str: ("text", "text")}[kind_of(item)[0]]


def flags(*arguments: str) -> dict:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser)
    return vars(parser.parse_args(arguments))


def help_text() -> str:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return " ".join(parser.format_help().split())


def pairs(item) -> dict[str, str]:
    """Variables of the other settings that this setting requires."""
    return {"tls_cert": {"NEUCODEC_TLS_KEY": "k"}, "tls_key": {"NEUCODEC_TLS_CERT": "c"}}.get(item.name, {})


def test_defaults_follow_the_device_and_any_source_overrides_them():
    cpu, cuda = resolve({}, NONE).settings, resolve({"device": "cuda:1"}, NONE).settings
    assert (cpu.dtype, cpu.max_sessions, cpu.batch_sizes[-1]) == ("float32", 64, 16)
    assert (cuda.dtype, cuda.max_sessions, cuda.batch_sizes[-1]) == ("bfloat16", 256, 256)
    given = resolve({"device": "cuda", "dtype": "float32"}, {"NEUCODEC_MAX_SESSIONS": "9"})
    assert (given.settings.dtype, given.settings.max_sessions) == ("float32", 9)
    assert "max_sessions" in given.origins and "batch_sizes" not in given.origins
    assert "max_sessions" in table(given) and "(default 64; on CUDA 256)" in help_text()


@pytest.mark.parametrize("item", fields(Settings), ids=lambda item: item.name)
def test_every_setting_is_a_variable_and_a_flag_and_a_key_of_the_file(item, tmp_path):
    text, value = example(item)
    given = resolve({}, {f"NEUCODEC_{item.name.upper()}": text} | pairs(item))
    assert getattr(given.settings, item.name) == value and given.origins[item.name] == "environment"
    if item.type is bool:
        assert getattr(resolve(flags("--no-" + item.name), NONE).settings, item.name) is False
    elif FLAG in entry_of(item).sources:
        given = resolve(flags("--" + item.name.replace("_", "-"), text), pairs(item))
        assert getattr(given.settings, item.name) == value and given.origins[item.name] == "flag"
        file = tmp_path / "server.toml"
        file.write_text(f'{item.name} = "{text}"')
        given = resolve({"config": str(file)}, pairs(item))
        assert getattr(given.settings, item.name) == value and given.origins[item.name] == "file"


def test_flags_override_the_environment_which_overrides_the_file(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("max_sessions = 1\nport = 1\nmax_load = 0.5\n")
    environment = {"NEUCODEC_MAX_SESSIONS": "2", "NEUCODEC_PORT": "2", "NEUCODEC_CONFIG": str(file)}
    found = resolve(flags("--max-sessions", "3"), environment)
    assert (found.settings.max_sessions, found.settings.port, found.settings.max_load) == (3, 2, 0.5)
    assert found.origins == {"max_sessions": "flag", "port": "environment", "max_load": "file"}


def test_the_config_flag_overrides_its_variable(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(f'model = "{name}"')
    environment = {"NEUCODEC_CONFIG": str(tmp_path / "one")}
    assert resolve({}, environment).settings.model == "one"
    assert resolve({"config": str(tmp_path / "two")}, environment).settings.model == "two"


def test_file_values_may_have_toml_types(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text(
        "port = 99\nmax_load = 1\nweb = false\nbatch_sizes = [2, 4]\nallow_origins = ['https://a.example']\n"
        "[profiles]\nmine = [4, 6]\nother = '2:3'\ntheirs = 'own'\n"
    )
    found = resolve({"config": str(file)}, NONE).settings
    assert (found.port, found.max_load, found.web, found.batch_sizes) == (99, 1, False, (2, 4))
    assert found.allow_origins == ("https://a.example",)
    assert found.profiles == {"mine": (4, 6), "other": (2, 3), "theirs": None}


@pytest.mark.parametrize("text", ["none", "", " none "])
def test_optional_settings_accept_the_word_none(text):
    found = resolve({}, {"NEUCODEC_MAX_ATTEMPTS_PER_MINUTE": text, "NEUCODEC_ALLOW_ORIGINS": text}).settings
    assert found.max_attempts_per_minute is None and found.allow_origins == ()


@pytest.mark.parametrize(
    ("variable", "near"), [("NEUCODEC_MAX_SESSION", "NEUCODEC_MAX_SESSIONS"), ("NEUCODEC_QQ", "--help")]
)
def test_an_unknown_variable_is_reported_with_its_name_and_near_ones_but_not_its_value(variable, near):
    found = resolve({}, {variable: "s3cret"})
    (sentence,) = found.unknown
    assert variable in sentence and near in sentence and "s3cret" not in sentence
    assert found.settings == Settings()


def test_variables_of_the_client_and_of_other_programs_are_ignored():
    environment = {"NEUCODEC_SERVER": "x", "NEUCODEC_API_KEY": "x", "NEUCODEC_CONFIG": "", "PATH": "x"}
    assert resolve({}, environment) == Resolved(Settings(), {}, ())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("batch_sizes = 8", "batch_sizes = '8'"),
        ("batch_sizes = [1, 2]", "batch_sizes = '1,2'"),
        ("batch_sizes = ['1', '2']", "batch_sizes = '1,2'"),
        ("profiles = ['low', 'mine=4:6']", "profiles = 'low,mine=4:6'"),
        ("profiles = { mine = [4, 6] }", "profiles = 'mine=4:6'"),
        ("trusted_proxies = ['10.0.0.0/8', '::1']", "trusted_proxies = '10.0.0.0/8, ::1'"),
        ("gather_ms = 5", "gather_ms = '5'"),
        ("web = 0", "web = 'no'"),
        ("mqtt_username = 5", "mqtt_username = '5'"),
    ],
)
def test_lists_and_numbers_in_the_file_equal_the_flags_text(tmp_path, given, text):
    for number, content in enumerate((given, text)):
        (tmp_path / f"{number}.toml").write_text(content)
    first, second = (resolve({"config": str(tmp_path / f"{number}.toml")}, {}) for number in range(2))
    assert first.settings == second.settings != Settings()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("max_session = 1", "max_session is not a setting: did you mean max_session"),
        ("max_sessions = ", "is not valid TOML"),
        ("max_sessions = 'many'", "max_sessions is 'many': expected a whole number"),
        ("max_sessions = 1.5", "max_sessions is 1.5"),
        ("web = 2", "web is '2': expected true or false"),
        ("batch_sizes = ['a']", "batch_sizes"),
        ("batch_sizes = []", "batch_sizes"),
        ("batch_sizes = [1.0, 2.0]", "batch_sizes"),
        ("max_sessions = [8]", "max_sessions is [8]: expected a whole number"),
        ("profiles = ['loud']", "profile 'loud' is unknown"),
        ("model = true", "model is True: expected a string"),
        ("[profiles]\nmine = [1]", "mine=1"),
        ("[max_sessions]\na = 1", "max_sessions is {'a': 1}"),
        ("api_keys = ['s3cret']", "api_keys is not allowed there: set NEUCODEC_API_KEYS in the environment"),
    ],
)
def test_an_invalid_file_is_refused_naming_file_and_key(tmp_path, content, named):
    file = tmp_path / "server.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        resolve({"config": str(file)}, NONE)
    assert named in str(caught.value) and str(file) in str(caught.value) and "s3cret" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"/nowhere/server.toml.*No such file"):
        resolve({"config": "/nowhere/server.toml"}, NONE)


@pytest.mark.parametrize(
    ("arguments", "environment", "source"),
    [(("--port", "x"), {}, "--port"), ((), {"NEUCODEC_PORT": "x"}, "NEUCODEC_PORT")],
)
def test_an_error_names_where_the_value_was_given(arguments, environment, source):
    with pytest.raises(ConfigError, match=f"{source}: port is 'x': expected a whole number"):
        resolve(flags(*arguments), environment)


def test_a_secret_has_no_flag():
    with pytest.raises(SystemExit):
        flags("--api-keys", "s3cret")


def test_the_printed_settings_are_a_file_with_the_same_meaning(tmp_path):
    environment = {f"NEUCODEC_{item.name.upper()}": example(item)[0] for item in fields(Settings)}
    first = resolve({}, environment)
    file = tmp_path / "server.toml"
    file.write_text(table(first))
    secrets = {"NEUCODEC_API_KEYS": "one,two", "NEUCODEC_MQTT_PASSWORD": "text", "NEUCODEC_SPEECH_LM_KEY": "text"}
    again = resolve({"config": str(file)}, secrets)
    assert again.settings == first.settings
    file.write_text(table(resolve({}, NONE)))
    assert resolve({"config": str(file)}, NONE).settings == Settings()


def test_the_printed_settings_show_sources_and_no_secrets():
    shown = table(resolve({"port": "1"}, {"NEUCODEC_API_KEYS": "s3cret,other"})).splitlines()
    lines = {line.split()[0]: line for line in shown if line and not line.startswith("#")}
    assert lines["port"].split() == ["port", "=", "1", "#", "flag"] and lines["host"].endswith("# default")
    (keys,) = (line for line in shown if "api_keys:" in line)
    assert "2 given" in keys and "environment" in keys and "s3cret" not in "".join(shown)


def test_files_that_settings_name_must_be_readable(tmp_path):
    there = tmp_path / "keys"
    there.touch()
    check_files(Settings(api_keys_file=str(there)))
    for bad in (tmp_path / "gone", tmp_path):
        with pytest.raises(ConfigError, match=r"api_keys_file.*cannot be read"):
            check_files(Settings(api_keys_file=str(bad)))
