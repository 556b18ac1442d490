"""The statistics that a calibration measures."""

import json

import numpy as np
import pytest
import torch

from neucodec_streaming import InputError, StreamConfig, load_codec
from neucodec_streaming.calibration import measure_priors
from neucodec_streaming.priors import read_priors
from tests.streaming.models import GOLDEN, codec_of, recording

CONFIG = StreamConfig(prior_weight=12)


def test_measured_priors_are_read_back_unchanged(tmp_path) -> None:
    content = measure_priors(codec_of("golden"), [recording()], CONFIG)
    (tmp_path / "stream.json").write_text(json.dumps(content))
    priors = read_priors(tmp_path / "stream.json")
    assert priors.config == CONFIG and priors.mel is not None and len(priors.group_norm) == 8
    assert list(priors.mel.mean) == content["mel"]["mean"]
    assert [list(norm.variance) for norm in priors.group_norm] == [norm["variance"] for norm in content["group_norm"]]
    assert content["measured"] == {"recordings": 1, "minutes": 0.03, "level_dbfs": -25.0}


def test_the_mel_prior_does_not_depend_on_the_level() -> None:
    loud, quiet = (measure_priors(codec_of("golden"), [gain * recording()], CONFIG) for gain in (1.0, 0.1))
    for part in ("mean", "variance"):
        np.testing.assert_allclose(quiet["mel"][part], loud["mel"][part], atol=0.05)
    assert quiet["measured"]["level_dbfs"] == loud["measured"]["level_dbfs"] - 20


def test_recordings_of_any_length_have_equal_weight() -> None:
    codec = codec_of("golden")
    first, second = recording()[:18_000], recording()[16_000:]
    alone = [measure_priors(codec, [pcm], CONFIG)["mel"]["mean"] for pcm in (first, second)]
    both = measure_priors(codec, [first, second], CONFIG)["mel"]["mean"]
    np.testing.assert_allclose(both, np.mean(alone, axis=0), atol=1e-4)


def test_a_bfloat16_model_is_measured_in_float32() -> None:
    content = measure_priors(load_codec(GOLDEN, dtype=torch.bfloat16), [recording()], CONFIG)
    assert content["mel"] == measure_priors(codec_of("golden"), [recording()], CONFIG)["mel"]
    variance = torch.tensor([norm["variance"] for norm in content["group_norm"]])
    assert variance.isfinite().all() and (variance.bfloat16().float() != variance).any()


def test_small_statistics_keep_their_precision() -> None:
    codec = load_codec(GOLDEN)
    with torch.no_grad():
        codec.model.acoustic_decoder.embed.weight.mul_(1e-3)
        codec.model.acoustic_decoder.embed.bias.mul_(1e-3)
    variance = measure_priors(codec, [recording()], CONFIG)["group_norm"][0]["variance"]
    assert min(variance) > 0 and max(variance) < 1e-4 and len(set(variance)) == 32


def test_less_than_a_second_of_speech_is_refused() -> None:
    for pcm in (recording(15_999), 1e-4 * recording(), np.zeros(32_000, np.float32)):
        with pytest.raises(InputError, match="use minutes of speech"):
            measure_priors(codec_of("golden"), [pcm], CONFIG)
