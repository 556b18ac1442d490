"""A remote codec behind NeuTTS's interface: its shapes (neutts 1.4), and live decoding of its model's text."""

import threading

import numpy as np
import pytest
import soundfile
import torch

from neucodec_streaming.client.neutts import RemoteCodec, RemoteDecoding
from neucodec_streaming.client.sync import LoopThread
from neucodec_streaming.errors import InputError, TokenError
from tests.client.fake_server import fake_server

REFERENCE = [7, 8, 9]
TOKENS = np.random.default_rng(0).integers(0, 32_768, 60).astype(np.uint16)


@pytest.fixture(scope="module")
def url():
    with LoopThread() as thread:
        context = fake_server()
        server = thread.call(context.__aenter__())
        yield server.url
        thread.call(context.__aexit__(None, None, None))


def heard_as(tokens):
    return np.repeat(tokens, 480).astype(np.int16).astype(np.float32) / 32_768


class Backbone:
    """A language model with the interface of llama_cpp: called with a prompt, it yields text."""

    def __init__(self):
        self.calls = []
        self.printed = 0

    def reset(self):
        self.calls.append("reset")

    def __call__(self, prompt, **options):
        self.calls.append((prompt, options))
        for number in TOKENS.tolist():
            self.printed += 1
            yield {"choices": [{"text": f"<|speech_{number}|>"}]}


class NeuTTS:
    """The calls that the published class makes to its codec and its model."""

    def __init__(self, codec_repo):
        self.max_context = 2048
        self.backbone = Backbone()
        self._load_codec(codec_repo, "cpu")

    def _call_seed(self):
        return 5

    def _ggml_prompt(self, ref_codes, ref_text, input_text, emotion=None):
        return f"{ref_text} {input_text} {emotion}" + "".join(f"<|speech_{code}|>" for code in ref_codes)

    def infer_stream(self, text, ref_codes, ref_text, emotion=None, temperature=1.0, top_k=50):
        return self._infer_stream_ggml(ref_codes, ref_text, text, emotion, temperature, top_k)

    def encode_reference(self, wav):
        with torch.no_grad():
            return self.codec.encode_code(audio_or_path=torch.from_numpy(wav)[None, None]).squeeze(0).squeeze(0)

    def decode_as_torch(self, ids):
        codes = torch.tensor(ids, dtype=torch.long)[None, None, :].to(self.codec.device)
        return self.codec.decode_code(codes).cpu().numpy()[0, 0, :]

    def decode_as_onnx(self, ids):
        return self.codec.decode_code(np.array(ids, dtype=np.int32)[np.newaxis, np.newaxis, :])[0, 0, :]


class LiveNeuTTS(RemoteDecoding, NeuTTS):
    pass


def test_references_and_complete_answers_have_the_shapes_of_neutts(url):
    tts = LiveNeuTTS(url)
    assert tts.codec.eval().to("cpu") is tts.codec
    wav = np.repeat(np.arange(6, dtype=np.float32) / 32_768, 320)
    codes = tts.encode_reference(wav)
    assert isinstance(codes, torch.Tensor) and codes.tolist() == list(range(6))
    assert "".join(f"{code} " for code in codes) == "0 1 2 3 4 5 "
    for heard in (tts.decode_as_torch(TOKENS.tolist()), tts.decode_as_onnx(TOKENS.tolist())):
        assert np.array_equal(heard, heard_as(TOKENS))


def test_a_path_is_read_at_any_rate(url, tmp_path):
    soundfile.write(tmp_path / "in.wav", np.zeros(48_000, np.int16), 48_000)
    codes = RemoteCodec(url).encode_code(tmp_path / "in.wav")
    assert codes.shape == (1, 1, 50) and isinstance(codes, np.ndarray)


def test_two_recordings_at_once_are_refused(url):
    with pytest.raises(InputError, match=r"\(2, 1, 320\)"):
        RemoteCodec(url).encode_code(np.zeros((2, 1, 320), np.float32))


def test_a_stream_is_exact_and_calls_the_model_as_neutts_does(url):
    tts = LiveNeuTTS(url)
    parts = list(tts.infer_stream("Hi.", REFERENCE, "So.", temperature=0.5))
    assert len(parts) > 3
    assert np.array_equal(np.concatenate(parts), heard_as(TOKENS))
    reset, (prompt, options) = tts.backbone.calls
    assert reset == "reset" and prompt.startswith("So. Hi. None<|speech_7|>")
    assert options == {
        "max_tokens": 2048,
        "temperature": 0.5,
        "top_k": 50,
        "stop": ["<|SPEECH_GENERATION_END|>"],
        "stream": True,
        "seed": 5,
    }


def test_audio_arrives_while_the_model_generates(url):
    goes_on = threading.Event()

    def printed():
        yield "<|speech_1|>" * 10
        assert goes_on.wait(10)
        yield "<|speech_2|>" * 10

    audio = RemoteCodec(url).decode_stream(printed())
    begun = next(audio)
    assert np.array_equal(begun, heard_as([1] * (begun.size // 480)))
    goes_on.set()
    assert begun.size + sum(part.size for part in audio) == 20 * 480


def test_closing_a_stream_stops_the_model_at_its_next_output(url):
    goes_on = threading.Event()
    printed = 0

    def endless():
        nonlocal printed
        while True:
            printed += 1
            yield "<|speech_1|>" * 5
            if printed == 3:
                assert goes_on.wait(10)

    audio = RemoteCodec(url).decode_stream(endless())
    next(audio)
    threading.Timer(0.1, goes_on.set).start()
    audio.close()
    assert printed <= 4


def test_text_before_a_failure_is_decoded(url):
    heard = []
    with pytest.raises(TokenError, match="70000"):
        for part in RemoteCodec(url).decode_stream(["<|speech_1|>", "<|speech_70000|>"]):
            heard.append(part)
    assert np.array_equal(np.concatenate(heard), heard_as([1]))
