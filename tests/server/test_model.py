"""What a server says of its model."""

from neucodec_streaming.codec import load_codec
from neucodec_streaming.server.model import _public_name
from tests.streaming.models import GOLDEN


def test_the_name_tells_the_version_of_the_weights_where_the_configuration_has_one():
    nano = load_codec("nano", kinds=("decode",))
    assert _public_name(nano) == f"nano-{nano.model.config.weights_version}"
    assert _public_name(load_codec(GOLDEN, kinds=("decode",))) == "neucodec-mini"
