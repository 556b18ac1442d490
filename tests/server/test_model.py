"""The server's description of its model."""

from neucodec_streaming.codec import load_codec
from tests.streaming.models import GOLDEN


def test_the_model_name_includes_the_weights_version_if_configured():
    golden = load_codec(GOLDEN, kinds=("decode",))
    nano = load_codec("nano", kinds=("decode",))
    assert nano.public_name == f"nano-{nano.model.config.weights_version}"
    assert golden.public_name == "neucodec-mini"
    assert nano.token_model == nano.public_name and golden.token_model == golden.fingerprint
