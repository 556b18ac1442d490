"""The cost of each approximation of the streams: each one undone or made worse alone, from the model's default.

An encoder variant is judged by its tokens and by the offline decoder's output for them, a decoder variant by its audio
for the offline tokens. Statistics that a stream lacks at its start, or always, come from the whole recording (`Seeds`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.fidelity.batched_streams import Seed, stream_all
from benchmarks.fidelity.references import Reference
from benchmarks.metrics.nearness import START, means, nearness, seam_measures, seams_of
from benchmarks.metrics.scores import compare
from neucodec_streaming.codec import Codec
from neucodec_streaming.config import INPUT_HOP, StreamConfig
from neucodec_streaming.decoder import Decoder, DecoderState
from neucodec_streaming.encoder import Encoder, EncoderState
from neucodec_streaming.layers.acoustic import StreamingAcoustic
from neucodec_streaming.layers.fbank import log_mel
from neucodec_streaming.layers.istft import StreamingISTFT
from neucodec_streaming.layers.norm import Moments
from neucodec_streaming.layers.step import StepPlan
from neucodec_streaming.stepper import Stepper

LOOKAHEADS = (0, 2, 10, 25)
CONTEXTS = (50, 100, 1500)
CAPS = (150, 300, 750, 1500, 6000)
UNMOVED_FRAMES = 10_000_000
"""A weight at which the stream's own input does not change the statistics."""

Variant = tuple[Stepper, Seed | None]


@dataclass(frozen=True)
class Ablation:
    """The change, its side (encode or decode), and its factory, `make(codec, references)`."""

    name: str
    kind: str
    make: Callable[[Codec, Sequence[Reference]], Variant]


def built(kind: type[Stepper], codec: Codec, config: StreamConfig) -> Any:
    return kind(codec._stepped, config, codec.priors, codec.fingerprint)


class ClippedEncoder(Encoder):
    """Limits each branch's lookahead to its own, at most the configuration's."""

    semantic_lookahead: int
    acoustic_lookahead: int

    def _semantic(self, pcm: Tensor, state: Any, plan: StepPlan) -> Tensor:
        return super()._semantic(pcm, state, clipped(plan, self.semantic_lookahead))

    def _acoustic(self, pcm: Tensor, state: Any, plan: StepPlan) -> Tensor:
        return super()._acoustic(pcm, state, clipped(plan, self.acoustic_lookahead))


def clipped(plan: StepPlan, lookahead_frames: int) -> StepPlan:
    return StepPlan(plan.slots, torch.minimum(plan.valid, plan.commit + lookahead_frames), plan.commit, plan.position)


class WindowDecoder(Decoder):
    """Limits every GroupNorm's statistics to its window."""

    def compute(self, x: Tensor, state: DecoderState, plan: StepPlan) -> Tensor:
        return super().compute(x, replace(state, frames_seen=torch.zeros_like(state.frames_seen)), plan)


class WindowISTFT(StreamingISTFT):
    """Synthesises each window alone and cuts it at the chunk's end."""

    def step(self, x: Tensor, tail: Tensor, plan: StepPlan) -> Tensor:
        alone = StepPlan(
            plan.slots, plan.valid, torch.minimum(plan.commit + 1, plan.valid), torch.zeros_like(plan.position)
        )
        return super().step(x, self.new_state(len(tail)), alone)


class MixedISTFT(WindowISTFT):
    """As WindowISTFT, with the first hop cross-faded with the previous window's version of it, which the tail keeps."""

    def step(self, x: Tensor, tail: Tensor, plan: StepPlan) -> Tensor:
        audio = super().step(x, tail, plan)
        kept = plan.load(tail)
        old, new = kept[:, : self.hop], audio[:, : self.hop]
        ramp = (torch.arange(self.hop, device=x.device) + 0.5) / self.hop
        audio[:, : self.hop] = torch.where((plan.position > 0)[:, None], torch.lerp(old, new, ramp), new)
        next_hop = plan.commit.clamp(max=x.shape[1] - 1)[:, None] * self.hop + torch.arange(self.hop, device=x.device)
        kept[:, : self.hop] = audio.gather(1, next_hop)
        plan.store(tail, kept)
        return audio


class Seeds:
    """Fills a slot's running statistics with those of whole recordings before it starts.

    `statistics` holds the moments (G,) of each recording, which weigh `weight_frames`. `shift` selects the recording
    that many places further on: 0 is its own.
    """

    def __init__(self, statistics: list[list[Moments]], weight_frames: int, shift: int = 0) -> None:
        self.statistics = statistics
        self.weight_frames = weight_frames
        self.shift = shift

    def __call__(self, state: Any, slot: int, index: int) -> None:
        known = self.statistics[(index + self.shift) % len(self.statistics)]
        state.frames_seen[slot] = self.weight_frames
        for running, own in zip(running_moments(state), known, strict=True):
            running.mean[slot] = own.mean
            running.variance[slot] = own.variance


def running_moments(state: Any) -> Iterator[Moments]:
    if isinstance(state, EncoderState):
        yield state.mel
    else:
        for block in (*state.prior_net, *state.post_net):
            yield from (block.norm1, block.norm2)


def mel_statistics(pcm: np.ndarray) -> list[Moments]:
    """Returns the statistics by which the feature extractor normalises a recording."""
    padded = np.pad(pcm, (0, INPUT_HOP - len(pcm) % INPUT_HOP))
    features = log_mel(torch.from_numpy(padded)[None])[0]
    return [Moments(features.mean(0), features.var(0))]


def group_norm_statistics(codec: Codec, tokens: np.ndarray) -> list[Moments]:
    network = codec.model.acoustic_decoder
    norms = [norm for block in (*network.prior_net, *network.post_net) for norm in (block.norm1, block.norm2)]
    inputs: list[Tensor] = []
    hooks = [norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for norm in norms]
    codec.decode(tokens)
    for hook in hooks:
        hook.remove()
    moments = []
    for norm, x in zip(norms, inputs, strict=True):
        groups = x[0].unflatten(0, (norm.num_groups, -1))  # (C, F) -> (G, C / G, F)
        moments.append(Moments(groups.mean((1, 2)), groups.var((1, 2), correction=0)))
    return moments


def configured(codec: Codec, recordings: Sequence[Reference], kind: str, **changed: Any) -> Variant:
    config = replace(codec.default_config, **changed)
    return (codec.encoder(config) if kind == "encode" else codec.decoder(config)), None


def looking_ahead(codec: Codec, recordings: Sequence[Reference], branch: str, frames: int) -> Variant:
    """Returns an encoder in which the other branch has the default lookahead."""
    default = codec.default_config.lookahead_frames
    stepper = built(ClippedEncoder, codec, replace(codec.default_config, lookahead_frames=max(frames, default)))
    stepper.semantic_lookahead, stepper.acoustic_lookahead = default, default
    setattr(stepper, f"{branch}_lookahead", frames)
    stepper.acoustic = StreamingAcoustic(stepper.model.acoustic_encoder, stepper.acoustic_lookahead)
    return stepper, None


def knowing(
    codec: Codec, recordings: Sequence[Reference], kind: str, weight_frames: int, other_voice: bool = False
) -> Variant:
    """Returns a stepper with statistics known in advance, the recording's own or another's, capped at their weight."""
    shift = len(recordings) // 2 if other_voice else 0
    if kind == "encode":
        stepper, statistics = built(Encoder, codec, codec.default_config), [mel_statistics(r.pcm) for r in recordings]
    else:
        stepper = built(Decoder, codec, codec.default_config)
        statistics = [group_norm_statistics(codec, r.tokens) for r in recordings]
    stepper.cap_frames = weight_frames
    return stepper, Seeds(statistics, weight_frames, shift)


def with_window_statistics(codec: Codec, recordings: Sequence[Reference]) -> Variant:
    return built(WindowDecoder, codec, replace(codec.default_config, prior_weight=0)), None


def with_istft(codec: Codec, recordings: Sequence[Reference], kind: type[StreamingISTFT]) -> Variant:
    decoder = built(Decoder, codec, codec.default_config)
    decoder.istft = kind(decoder.istft.head, decoder.config)
    return decoder, None


def ablated(codec: Codec, ablation: Ablation, references: Sequence[Reference]) -> dict[str, Any]:
    """Measures an ablation's distance from offline, for the whole and the first 300 ms, and its STOI."""
    stepper, seed = ablation.make(codec, references)
    encodes = ablation.kind == "encode"
    pieces = stream_all(stepper, [r.pcm if encodes else r.tokens for r in references], seed)
    whole = [np.concatenate(parts) for parts in pieces]
    tokens = whole if encodes else [r.tokens for r in references]
    audio = [codec.decode(own) for own in tokens] if encodes else whole
    near = [nearness(t, a, r.tokens, r.audio) for t, a, r in zip(tokens, audio, references, strict=True)]
    row = {"name": ablation.name, "kind": ablation.kind}
    row |= means([one.measures() for one in near])
    row |= {f"first_{name}": value for name, value in means([one.measures(START) for one in near]).items()}
    row["stoi"] = float(np.mean([compare(r.pcm, a)["stoi"] for r, a in zip(references, audio, strict=True)]))
    if not encodes:
        row |= seam_measures([seams_of(parts, r.audio) for parts, r in zip(pieces, references, strict=True)])
    return row


def _of_both(name: str, make: Callable[..., Variant], **arguments: Any) -> list[Ablation]:
    return [Ablation(name, kind, partial(make, kind=kind, **arguments)) for kind in ("encode", "decode")]


ABLATIONS = [
    *_of_both("default", configured),
    *(
        Ablation(f"{branch} lookahead {frames}", "encode", partial(looking_ahead, branch=branch, frames=frames))
        for branch in ("semantic", "acoustic")
        for frames in LOOKAHEADS
    ),
    *(
        ablation
        for frames in LOOKAHEADS
        for ablation in _of_both(f"lookahead {frames}", configured, lookahead_frames=frames)
    ),
    *(ablation for frames in CONTEXTS for ablation in _of_both(f"context {frames}", configured, context_frames=frames)),
    *_of_both("no prior", configured, prior_weight=0),
    *_of_both("statistics of the whole recording", knowing, weight_frames=UNMOVED_FRAMES),
    Ablation("statistics of the window alone", "decode", with_window_statistics),
    *(
        ablation
        for cap in CAPS
        for voice, other in (("the same", False), ("another", True))
        for ablation in _of_both(f"after {voice} voice, cap {cap}", knowing, weight_frames=cap, other_voice=other)
    ),
    Ablation("windows synthesised alone, cut", "decode", partial(with_istft, kind=WindowISTFT)),
    Ablation("windows synthesised alone, mixed", "decode", partial(with_istft, kind=MixedISTFT)),
]
