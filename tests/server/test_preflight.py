"""Problems that --check-config finds beyond invalid settings."""

import pytest

from neucodec_streaming.errors import ConfigError, ModelError
from neucodec_streaming.server.cli import main
from neucodec_streaming.server.preflight import check_device, check_model


@pytest.mark.parametrize("name", ["nothing", "/no/such/folder", "5", "a/b/c"])
def test_a_missing_model_is_named_with_advice(name):
    with pytest.raises(ModelError, match=rf"no model '{name}': use nano, a folder with config.json, or a hub id"):
        check_model(name)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        check_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    check_model(str(tmp_path))
    check_model("nano")


def test_a_hub_model_must_be_cached_when_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="not in the cache"):
        check_model("no-one/no-model")


def test_the_first_sentence_of_torchs_error_is_the_reason(monkeypatch):
    def no_driver(*_, **__):
        raise RuntimeError("Found no NVIDIA driver on your system. Please check that you have a GPU" + 100 * "!")

    monkeypatch.setattr("torch.zeros", no_driver)
    with pytest.raises(ConfigError, match=r"cannot be used \(Found no NVIDIA driver on your system\): use cpu"):
        check_device("cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:x"])
def test_an_invalid_device_is_named(device):
    with pytest.raises(ConfigError, match=rf"device '{device}' cannot be used"):
        check_device(device)
    check_device("cpu")


def test_check_config_exits_as_the_start_would(capsys, monkeypatch):
    for arguments, code in ((["--model", "nothing"], 3), (["--device", "gpu"], 2), ([], 0)):
        assert main([*arguments, "--check-config"]) == code
    said = capsys.readouterr()
    assert "no model 'nothing'" in said.err and "device 'gpu' cannot be used" in said.err
    assert "Traceback" not in said.err
