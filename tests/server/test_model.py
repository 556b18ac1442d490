"""The server's description of its model."""

from neucodec_streaming.codec import load_codec
from tests.streaming.models import GOLDEN


def test_the_model_is_named_without_its_path_and_with_its_weights_version_if_configured(monkeypatch):
    golden = load_codec(GOLDEN, kinds=("decode",))
    nano = load_codec("nano", kinds=("decode",))
    assert nano.public_name == f"nano-{nano.model.config.weights_version}"
    assert golden.public_name == "neucodec-mini"
    monkeypatch.chdir(GOLDEN)
    for golden.name in (".", "../neucodec-mini/", str(GOLDEN)):
        assert golden.public_name == "neucodec-mini"
    golden.name = str(GOLDEN / "model.safetensors")
    assert golden.public_name == "model.safetensors"
    assert nano.token_model == nano.public_name and golden.token_model == golden.fingerprint
