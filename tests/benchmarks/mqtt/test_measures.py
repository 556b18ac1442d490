"""What `benchmarks.mqtt` counts as lost is what a listener did not get."""

import numpy as np

from benchmarks.mqtt.testbed import Heard
from demos.mqtt.lossy_link import Damage, LossyLink
from neucodec_streaming.client.events import Tokens
from neucodec_streaming.client.mqtt.stream import Missing, UtteranceEnded


def tokens(*values: int) -> np.ndarray:
    return np.array(values, np.uint16)


def test_concealed_tokens_and_a_missing_end_count_as_lost():
    heard = Heard(10)
    heard.take(Tokens(tokens(1, 2), 0), 1.0)
    heard.take(Missing(2, 4, True), 2.0)
    heard.take(Tokens(tokens(9, 9, 5), 2), 2.0)
    heard.take(UtteranceEnded(5), 2.0)
    heard.complete()
    assert heard.tokens[:5].tolist() == [1, 2, 9, 9, 5]
    assert heard.lost.tolist() == [False, False, True, True, False] + [True] * 5
    assert heard.told_units == 2
    assert heard.at_s[0] == 1.0 and np.isnan(heard.at_s[9])


def test_the_link_damages_only_qos_0_publishes_in_the_given_shares():
    link = LossyLink(0, Damage(drop=0.1, repeat=0.2, reorder=0.3), seed=1)
    fates = [link._fate(bytes([0x30, 0])) for _ in range(5000)]
    shares = [fates.count(fate) / 5000 for fate in ("dropped", "repeated", "reordered")]
    assert np.allclose(shares, [0.1, 0.2, 0.3], atol=0.03)
    assert {link._fate(bytes([head, 0])) for head in (0x10, 0x32, 0x3A, 0x40, 0xC0)} == {"passed"}
