"""Codes one recording with our codec and the others, and measures the output: the work of one worker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.recordings import load
from benchmarks.metrics.distillmos import DistillMos
from benchmarks.metrics.dnsmos import Dnsmos
from benchmarks.metrics.scores import Scores, aligned, compare, nearness_of, whole_hops
from benchmarks.metrics.speaker import SpeakerEncoder
from benchmarks.metrics.word_errors import Recogniser, word_errors
from benchmarks.quality.damage import DAMAGES, TOKEN_BITS, damaged
from benchmarks.quality.other_codecs import OtherCodec
from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import INPUT_RATE, TOKENS_PER_SECOND
from neucodec_streaming.server.settings.fields import PROFILES

PACKET_SAMPLES = 1600
PACKET_TOKENS = 5
KBITS = TOKEN_BITS * TOKENS_PER_SECOND / 1000

Coder = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""float32 at 16 kHz (T,) -> tokens (T // 320,) and audio at 24 kHz (T // 320 * 480,)."""


@dataclass(frozen=True)
class EvaluationRecording:
    """A file to measure; whether words and voice are rated, and damaged tokens decoded."""

    speaker: str
    corpus: str
    path: Path
    text: list[str] | None = None
    is_heard: bool = True
    is_damaged: bool = False


@dataclass(frozen=True)
class EvaluationSettings:
    model: str
    others: tuple[OtherCodec, ...] = ()
    profiles: tuple[str, ...] = tuple(PROFILES)
    listens: bool = True
    listens_to_others: bool = False


@dataclass(frozen=True)
class Measured:
    entry: dict
    tokens: dict[str, np.ndarray]


@dataclass(frozen=True)
class Ears:
    """The networks that rate output; None for those not installed or not wanted."""

    dnsmos: Dnsmos | None = None
    distillmos: DistillMos | None = None
    speaker: SpeakerEncoder | None = None
    recogniser: Recogniser | None = None

    def rate(self, audio: np.ndarray) -> Scores:
        """(T,) at 16 kHz. Both networks need no reference."""
        networks = (network for network in (self.dnsmos, self.distillmos) if network is not None)
        return {name: value for network in networks for name, value in network.rate(audio).items()}

    def words(self, audio: np.ndarray, language: str | None = None) -> list[str] | None:
        """(T,) at 16 kHz; None without a recogniser."""
        return None if self.recogniser is None else self.recogniser.words(audio, language)

    def language(self, audio: np.ndarray) -> str | None:
        """(T,) at 16 kHz; None without a recogniser."""
        return None if self.recogniser is None else self.recogniser.language(audio)

    def likeness(self, original: np.ndarray, output: np.ndarray) -> Scores:
        """Two (T,) at 16 kHz; empty without a speaker encoder."""
        return {} if self.speaker is None else self.speaker.likeness(original, output)


@dataclass(frozen=True)
class Original:
    """The reference: (T,) at 16 kHz, its language, its transcript and its true text."""

    audio: np.ndarray
    language: str | None
    transcript: list[str] | None
    text: list[str] | None

    def listen(self, ears: Ears, output: np.ndarray) -> Scores:
        words = ears.words(output, self.language)
        errors = {} if words is None else word_errors(words, self.text, self.transcript)
        return ears.rate(output) | ears.likeness(self.audio, output) | errors


def encoded(codec: Codec, pcm: np.ndarray, config: StreamConfig | None = None) -> np.ndarray:
    """Returns tokens (T // 320,)."""
    encoder = codec.encoder_stream(config)
    packets = [encoder.feed(pcm[i : i + PACKET_SAMPLES]) for i in range(0, len(pcm), PACKET_SAMPLES)]
    return np.concatenate([*packets, encoder.flush()])


def decoded(
    codec: Codec, tokens: np.ndarray, config: StreamConfig | None = None, lost: np.ndarray | None = None
) -> np.ndarray:
    """Returns audio (F * 480,); `lost`, bool (F,), marks missing tokens."""
    decoder = codec.decoder_stream(config)
    lost = np.zeros(len(tokens), bool) if lost is None else lost
    cuts = [slice(i, i + PACKET_TOKENS) for i in range(0, len(tokens), PACKET_TOKENS)]
    return np.concatenate([*(decoder.feed(tokens[cut], lost[cut]) for cut in cuts), decoder.flush()])


def coded_offline(codec: Codec, pcm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tokens = codec.encode(pcm)
    return tokens, codec.decode(tokens)


def coded_as_stream(codec: Codec, config: StreamConfig, pcm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tokens = encoded(codec, pcm, config)
    return tokens, decoded(codec, tokens, config)


def ways_of(codec: Codec, profiles: Sequence[str] = tuple(PROFILES)) -> dict[str, Coder]:
    ways: dict[str, Coder] = {"offline": partial(coded_offline, codec)}
    for name in profiles:
        default, pair = codec.default_config, PROFILES[name]
        config = default if pair is None else replace(default, chunk_frames=pair[0], lookahead_frames=pair[1])
        ways["streamed" if pair is None else f"streamed {name}"] = partial(coded_as_stream, codec, config)
    return ways


def open_ears() -> tuple[Ears, list[str]]:
    """Returns the installed networks, and the reasons for those left out."""
    opened: dict[str, Any] = {}
    reasons = []
    for name, measure, kind in (
        ("dnsmos", "DNSMOS", Dnsmos),
        ("distillmos", "DistilMOS", DistillMos),
        ("speaker", "speaker similarity", SpeakerEncoder),
        ("recogniser", "word errors", Recogniser),
    ):
        try:
            opened[name] = kind()
        except ImportError as error:
            reasons.append(f"{measure}: {error}")
    return Ears(**opened), reasons


def evaluated(settings: EvaluationSettings, recording: EvaluationRecording) -> Measured:
    """Keeps loaded models for the next recording."""
    codec, ears = _loaded(settings)
    ways = ways_of(codec, settings.profiles)
    ears = ears if recording.is_heard else Ears(ears.dnsmos)
    measured = measure(recording, ways, ears, settings.others, settings.listens_to_others)
    if recording.is_damaged and "streamed" in ways:
        pcm, tokens = load(recording.path), measured.tokens["streamed"]
        measured.entry["damaged"] = damage_scores(codec, recording.path.name, pcm, tokens)
    return measured


@cache
def _loaded(settings: EvaluationSettings) -> tuple[Codec, Ears]:
    torch.set_num_threads(1)
    return load_codec(settings.model), open_ears()[0] if settings.listens else Ears()


def measure(
    recording: EvaluationRecording,
    ways: dict[str, Coder],
    ears: Ears,
    others: tuple[OtherCodec, ...] = (),
    listens_to_others: bool = False,
) -> Measured:
    pcm = load(recording.path)
    audio = pcm[: whole_hops(pcm)]
    language = ears.language(audio)
    original = Original(audio, language, ears.words(audio, language), recording.text)
    own = {} if original.transcript is None else word_errors(original.transcript, recording.text)
    scores: dict[str, Scores] = {"original": ears.rate(audio) | own}
    tokens = {}
    for name, way in ways.items():
        tokens[name], decoded_audio = way(pcm)
        _, output = aligned(pcm, decoded_audio)
        scores[name] = {"kbits": KBITS} | nearness_of(audio, output) | original.listen(ears, output)
    for codec in others:
        output, kbits = codec.code(audio)
        scores[codec.name] = {"kbits": kbits} | nearness_of(audio, output)
        if listens_to_others:
            scores[codec.name] |= original.listen(ears, output)
    entry = {
        "file": recording.path.name,
        "speaker": recording.speaker,
        "corpus": recording.corpus,
        "seconds": round(len(pcm) / INPUT_RATE, 2),
    }
    return Measured(entry | {"ways": scores}, tokens)


def heard(settings: EvaluationSettings, recording: EvaluationRecording) -> dict[str, np.ndarray]:
    """Returns the original and every output, each (T,) at 16 kHz."""
    pcm = load(recording.path)
    ways = ways_of(_loaded(settings)[0], settings.profiles)
    original = pcm[: whole_hops(pcm)]
    ours = {name: aligned(pcm, way(pcm)[1])[1] for name, way in ways.items()}
    return {"original": original} | ours | {codec.name: codec.code(original)[0] for codec in settings.others}


def damage_scores(codec: Codec, file: str, pcm: np.ndarray, tokens: np.ndarray) -> dict[str, Scores]:
    """Decodes the tokens intact and with each damage."""
    scores = {"none": compare(pcm, decoded(codec, tokens))}
    for name in DAMAGES:
        arrived, lost = damaged(name, file, tokens)
        scores[name] = compare(pcm, decoded(codec, arrived, lost=lost))
    return scores
