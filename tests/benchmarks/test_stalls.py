"""A live speaker after a stall: back within ten seconds, and as intelligible as without the splices."""

import numpy as np
import pytest

from benchmarks.stalls import SECONDS, SPEECH, cut_at, measure
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.client.jitter import Splice
from neucodec_streaming.config import OUTPUT_RATE


@pytest.mark.parametrize("stall_s", [0.4, 1.5])
def test_playback_is_live_again_within_ten_seconds_in_a_noisy_room(stall_s):
    speech = np.resize(read_audio(SPEECH, OUTPUT_RATE), SECONDS * OUTPUT_RATE)
    found = measure(speech, 15, stall_s, seed=0)
    assert found["back_s"] < 10
    assert found["skips"] == (stall_s > 0.5)
    assert found["stoi_loss"] < 0.02


def test_a_reference_is_cut_where_the_splices_are():
    assert cut_at(np.arange(10), [Splice(2, 3), Splice(7, 2)]).tolist() == [0, 1, 5, 6, 9]
