"""Loading, whole recordings, and the original package's calls."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neucodec_streaming import AudioError, ConfigError, InputError, ModelError, StreamConfig, TokenError, load_codec
from neucodec_streaming.codec import ASSETS, Codec
from neucodec_streaming.loading import PARTS
from tests.streaming.models import GOLDEN, codec_of, recording, vectors, whole


@pytest.mark.parametrize("name", ["short", "exact", "long"])
def test_reproduces_the_original_implementation(name: str) -> None:
    codec = codec_of("golden")
    codes = codec.encode_code(vectors()[f"{name}.wav"])
    assert torch.equal(codes, vectors()[f"{name}.codes"])
    torch.testing.assert_close(codec.decode_code(codes), vectors()[f"{name}.recon"], atol=1e-4, rtol=1e-4)


def test_reproduces_the_original_decoding_of_a_batch_of_random_codes() -> None:
    audio = codec_of("golden").decode_code(vectors()["random.codes"])
    torch.testing.assert_close(audio, vectors()["random.recon"], atol=1e-4, rtol=1e-4)


def test_reads_a_file_of_any_rate_and_channel_count(tmp_path: Path) -> None:
    import soundfile

    pcm = recording(16_000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([pcm, pcm], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(codec_of("golden").encode(tmp_path / "stereo.wav"), codec_of("golden").encode(pcm))
    soundfile.write(tmp_path / "slow.flac", pcm[:8000], 8000)
    assert len(codec_of("golden").encode(tmp_path / "slow.flac")) == 50
    with pytest.raises(InputError, match=r"none\.wav"):
        codec_of("golden").encode(tmp_path / "none.wav")


def test_a_batch_equals_each_recording_alone_and_may_be_empty() -> None:
    codec, pcms = codec_of("golden"), [recording(6400), recording(6500)]
    for tokens, pcm in zip(codec.encode_batch(pcms), pcms, strict=True):
        np.testing.assert_array_equal(tokens, codec.encode(pcm))
    assert codec.encode_batch([]) == []
    with pytest.raises(InputError, match=r"\[10, 20\] frames"):
        codec.encode_batch([recording(3200), recording(6400)])


def copy_of_golden(folder: Path) -> Path:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, folder / name)
    return folder


def test_a_snapshot_fits_another_copy_of_the_same_model(tmp_path: Path) -> None:
    here, there = codec_of("golden").encoder_stream(), load_codec(copy_of_golden(tmp_path)).encoder_stream()
    here.feed(recording(9000))
    there.restore(here.snapshot())
    np.testing.assert_array_equal(there.flush(), here.flush())


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    (copy_of_golden(tmp_path) / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_codec(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (copy_of_golden(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        load_codec(tmp_path)


def test_broken_json_is_refused(tmp_path: Path) -> None:
    (copy_of_golden(tmp_path) / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not a JSON object"):
        load_codec(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (copy_of_golden(tmp_path) / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="'bert'"):
        load_codec(tmp_path)


def test_cut_off_weights_are_refused(tmp_path: Path) -> None:
    weights = copy_of_golden(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_codec(tmp_path)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    path = copy_of_golden(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 128}))
    with pytest.raises(ModelError):
        load_codec(tmp_path)


def test_missing_weights_are_refused_by_name(tmp_path: Path) -> None:
    path = copy_of_golden(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"acoustic_decoder\.layers\.2"):
        load_codec(tmp_path)


def test_a_frame_rate_that_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    path = copy_of_golden(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"input_sampling_rate": 24_000}))
    with pytest.raises(ModelError, match="input rate 24000"):
        load_codec(tmp_path)


@pytest.mark.parametrize("name", ["no-such-model", "./no/such", "/no/such"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ModelError, match="nano"):
        load_codec(name)


def test_a_hub_id_out_of_reach_is_refused_with_a_remedy() -> None:
    with pytest.raises(ModelError, match="check the name and the network"):
        load_codec("no-one-at-all/no-such-model")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_an_unknown_device_is_refused(dtype: str) -> None:
    with pytest.raises(ConfigError, match=r"'warp' cannot be used .* use cpu, cuda"):
        load_codec(GOLDEN, device="warp", dtype=dtype)
    with pytest.raises(ConfigError, match="'warp' cannot be used"):
        codec_of("golden" if dtype == "float32" else "golden-int8").to("warp")


@pytest.mark.parametrize("broken", ["{", '{"version": 2}', '{"version": 1, "chunk_frames": 5}', "[]"])
def test_an_invalid_stream_json_is_refused(tmp_path: Path, broken: str) -> None:
    (copy_of_golden(tmp_path) / "stream.json").write_text(broken)
    with pytest.raises(ModelError, match=r"stream\.json"):
        load_codec(tmp_path)


@pytest.mark.parametrize(
    ("pcm", "says"),
    [
        (np.zeros(5), "float64"),
        (np.zeros((2, 5), np.float32), r"\(2, 5\)"),
        (["0"], "list"),
        (np.array([0, np.nan], np.float32), "sample 1 of 2 is nan"),
        (np.array([np.inf], np.float32), "sample 0 of 1 is inf"),
        (np.array([0, -20_000], np.float32), "sample 1 of 2 is -20000.0: full scale is 1.0"),
    ],
)
def test_bad_audio_is_refused_and_the_stream_is_unchanged(pcm: object, says: str) -> None:
    stream = codec_of("golden").encoder_stream(StreamConfig(4, 1))
    stream.feed(recording(3000))
    before = stream.snapshot()
    with pytest.raises(AudioError, match=says):
        stream.feed(pcm)  # type: ignore[arg-type]
    assert stream.snapshot() == before
    with pytest.raises(InputError):
        codec_of("golden").encode(pcm)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (np.zeros(3, np.float32), "float32"),
        (np.array([1, 65_536]), "token 1 of 2 is 65536"),
        (np.array([-1]), "token 0 of 1 is -1"),
        (["1", "2"], "list"),
        (np.zeros((2, 3), np.uint16), r"\(2, 3\)"),
    ],
)
def test_bad_tokens_are_refused_and_the_stream_is_unchanged(tokens: object, says: str) -> None:
    stream = codec_of("golden").decoder_stream(StreamConfig(4, 1))
    stream.feed(np.arange(7, dtype=np.uint16))
    before = stream.snapshot()
    with pytest.raises(TokenError, match=says):
        stream.feed(tokens)  # type: ignore[arg-type]
    assert stream.snapshot() == before
    with pytest.raises(TokenError):
        codec_of("golden").decode(tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [list, torch.from_numpy, lambda values: torch.from_numpy(values)[None, None]])
def test_streams_and_recordings_take_tensors_and_lists(form) -> None:
    codec = codec_of("golden")
    pcm, tokens = recording(3000), np.arange(7)
    decoder, encoder = codec.decoder_stream(StreamConfig(4, 1)), codec.encoder_stream(StreamConfig(4, 1))
    expected = decoder.feed(tokens)
    decoder.reset()
    np.testing.assert_array_equal(decoder.feed(form(tokens)), expected)
    np.testing.assert_array_equal(codec.decode(form(tokens)), codec.decode(tokens))
    if form is not list:
        form = torch.from_numpy
    np.testing.assert_array_equal(codec.encode(form(pcm)), codec.encode(pcm))
    assert len(encoder.feed(form(pcm))) == len(codec.encoder_stream(StreamConfig(4, 1)).feed(pcm))


def test_the_value_of_a_lost_token_does_not_matter() -> None:
    stream = codec_of("golden").decoder_stream(StreamConfig(4, 1))
    tokens = np.array([9, 7, 3, 5, 1], np.uint16)
    lost = np.array([True, False, True, True, False])
    expected = np.concatenate([stream.feed(tokens, lost), stream.flush()])
    with pytest.raises(TokenError, match="bool"):
        stream.feed(tokens, np.zeros(5))
    marked = np.where(lost, -1, tokens)
    np.testing.assert_array_equal(np.concatenate([stream.feed(marked, lost), stream.flush()]), expected)
    with pytest.raises(TokenError, match="token 1 of 5 is -1"):
        stream.feed(marked - np.arange(5) * 8, lost)


def test_lost_tokens_may_have_the_shape_of_codes_and_refused_ones_change_nothing() -> None:
    stream = codec_of("golden").decoder_stream(StreamConfig(4, 1))
    tokens, lost = np.array([9, 7, 3, 5, 1], np.uint16), np.array([True, False, True, True, False])
    expected = np.concatenate([stream.feed(tokens, lost), stream.flush()])
    for wrong, marks in (
        ([[1], [2, 3]], lost[:2]),
        (torch.zeros(2, dtype=torch.bfloat16), lost[:2]),
        ([1], [[True], 2]),
    ):
        with pytest.raises(TokenError):
            stream.feed(wrong, marks)
    audio = [stream.feed(tokens[None, None], lost[None, None]), stream.flush()]
    np.testing.assert_array_equal(np.concatenate(audio), expected)


def test_a_given_stream_json_replaces_the_models_own(tmp_path: Path) -> None:
    (copy_of_golden(tmp_path) / "stream.json").write_text("{")
    codec = load_codec(tmp_path, stream_json=ASSETS / "nano" / "stream.json")
    assert codec.default_config == load_codec("nano").default_config
    assert codec.fingerprint != codec_of("golden").fingerprint


@pytest.mark.parametrize("name", [str(GOLDEN), "no-one-at-all/no-such-model"])
def test_a_missing_stream_json_is_refused_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"mine\.json"):
        load_codec(name, stream_json=tmp_path / "mine.json")


@pytest.mark.parametrize(("kind", "other"), [("decode", "encode"), ("encode", "decode")])
def test_a_single_kind_can_be_loaded_alone_and_computes_the_same(kind: str, other: str) -> None:
    both, part = codec_of("golden"), load_codec(GOLDEN, kinds=[kind])
    assert {name for name, _ in part.model.named_children()} == {*PARTS[kind], "quantizer"}
    x = recording(9000) if kind == "encode" else np.arange(40)
    np.testing.assert_array_equal(getattr(part, kind)(x), getattr(both, kind)(x))
    streams = [getattr(codec, f"{kind}r_stream")() for codec in (part, both)]
    one, two = (np.concatenate([stream.feed(x), stream.flush()]) for stream in streams)
    np.testing.assert_array_equal(one, two)
    for call in (lambda: getattr(part, f"{other}r_stream")(), lambda: getattr(part, other)(x)):
        with pytest.raises(ConfigError, match="kinds"):
            call()


@pytest.mark.parametrize("kinds", [(), "decode", ("decode", "listen")])
def test_invalid_kinds_are_refused(kinds: object) -> None:
    with pytest.raises(ConfigError, match="kinds is"):
        load_codec(GOLDEN, kinds=kinds)  # type: ignore[arg-type]


def test_cuda_moves_a_codec_to_the_device_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Codec, "to", lambda codec, device: device)
    assert codec_of("golden").cuda() == "cuda"


def test_the_calls_of_the_original_package_work() -> None:
    codec = Codec.from_pretrained(GOLDEN).eval().to("cpu").cpu()
    assert (codec.sample_rate, codec.hop_length) == (24_000, 480)
    pcm = recording(6400)
    codes = codec.encode_code(audio_or_path=torch.from_numpy(pcm)[None, None])
    np.testing.assert_array_equal(codes[0, 0], codec.encode(pcm))
    expected = codec.decode(codec.encode(pcm))
    for form in (codes, codes.numpy(), codes.tolist()):
        np.testing.assert_array_equal(codec.decode_code(form)[0, 0], expected)
    np.testing.assert_array_equal(codec.encode_code(pcm[None, None]), codes)
    for wrong in (codes[:0], codes[0], [[[1, 2]], [[3]]]):
        with pytest.raises(InputError, match=r"expected \(B, 1, T\)"):
            codec.decode_code(wrong)


@pytest.mark.parametrize(("asked", "used"), [(None, 1), (2, 2), (3, 3)])
def test_threads_are_limited_around_calls_and_restored(asked: int | None, used: int) -> None:
    codec, seen, before = load_codec(GOLDEN, threads=asked), [], torch.get_num_threads()
    hook = codec.model.quantizer.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(4)
    try:
        stream = codec.encoder_stream()
        stepped = stream._stepper.model.quantizer.register_forward_pre_hook(
            lambda *_: seen.append(torch.get_num_threads())
        )
        codec.encode(recording(3200))
        stream.feed(recording(9600))
        assert len(seen) > 1 and set(seen) == {used} and torch.get_num_threads() == 4
        stepped.remove()
    finally:
        hook.remove()
        torch.set_num_threads(before)
    with pytest.raises(ConfigError, match="threads is 0"):
        load_codec(GOLDEN, threads=0)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_decoders_of_other_output_rates_stream_as_offline(rate: int, tmp_path: Path) -> None:
    codec = load_codec(resampled_golden(tmp_path, rate))
    assert (codec.sample_rate, codec.hop_length) == (rate, rate // 50)
    tokens = np.arange(0, 60_000, 1500)
    offline = codec.decode(tokens)
    stream = codec.decoder_stream(whole(len(tokens)))
    audio = np.concatenate([stream.feed(tokens), stream.flush()])
    assert len(audio) == len(tokens) * rate // 50
    assert np.abs(audio - offline).max() <= 1e-4 * np.abs(offline).max()
    live = codec.decoder_stream(StreamConfig(4, 1))
    parts = [live.feed(tokens[:7]), live.feed(tokens[7:]), live.flush()]
    assert len(np.concatenate(parts)) == len(audio) and not any(len(part) % (rate // 50) for part in parts)


def test_an_output_rate_that_has_no_whole_frame_is_refused(tmp_path: Path) -> None:
    folder = copy_of_golden(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"output_sampling_rate": 22_051}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="output rate 22051"):
        load_codec(folder)


def resampled_golden(folder: Path, rate: int) -> Path:
    """The head has random weights."""
    copy_of_golden(folder)
    config = json.loads((folder / "config.json").read_text()) | {"output_sampling_rate": rate}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    head = weights["acoustic_decoder.head.linear.weight"]
    random = torch.Generator().manual_seed(0)
    bins = 4 * rate // 50 + 2
    weights["acoustic_decoder.head.linear.weight"] = torch.randn(bins, head.shape[1], generator=random) * head.std()
    weights["acoustic_decoder.head.linear.bias"] = torch.zeros(bins)
    save_file(weights, folder / "model.safetensors")
    return folder
