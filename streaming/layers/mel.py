"""The semantic branch's input: log-mel frames normalised by running statistics, two of them a token.

The offline feature extractor normalises each mel bin by its mean and variance over the recording. Here the statistics
run over the stream. The prior is the spectral shape of speech relative to its level; the level comes from the stream.
"""

import torch
from torch import Tensor

from neucodec_streaming.kernels.packed import make_linear
from neucodec_streaming.layers.fbank import MEL_BINS, log_mel, mel_matrix
from neucodec_streaming.layers.norm import Moments, PooledMoments, PoolingWeights, new_moments

MEL_PER_FRAME = 2
VARIANCE_FLOOR = 1e-7


class StreamingMel:
    """PCM window to normalised features. `prior`: moments (1, 80) relative to the overall level, or None."""

    def __init__(self, prior: Moments | None, device: torch.device) -> None:
        self.prior = prior
        self.to_mel = make_linear(mel_matrix(device).T, None)

    def new_state(self, slots: int, like: Tensor) -> Moments:
        return new_moments(like, slots, MEL_BINS)

    def step(self, pcm: Tensor, state: Moments, weights: PoolingWeights) -> Tensor:
        """pcm (B, T) -> features (B, F, 160), T at least F * 320 + 240; `weights` of 2 F elements."""
        mel = log_mel(pcm.float(), self.to_mel)
        mel = mel[:, : mel.shape[1] // MEL_PER_FRAME * MEL_PER_FRAME]
        each, past = Moments(mel, torch.zeros_like(mel)), state.load(weights.plan)
        # Without a prior its share is 0, so its value does not matter.
        prior = past if self.prior is None else self._at_level(self.prior, each, past, weights)
        pooled_from = PooledMoments(prior, past, each)
        state.store(weights.plan, pooled_from.pooled(weights.carried))
        now, count = pooled_from.pooled(weights.current), weights.frames * MEL_PER_FRAME
        variance = now.variance * (count / (count - 1).clamp(min=1))
        normal = (mel - now.mean[:, None]) / torch.sqrt(variance + VARIANCE_FLOOR)[:, None]
        return normal.unflatten(1, (-1, MEL_PER_FRAME)).flatten(2)  # (B, 2 F, 80) -> (B, F, 160)

    def _at_level(self, prior: Moments, each: Moments, past: Moments, weights: PoolingWeights) -> Moments:
        """The prior (1, 80) at the stream's overall level so far: (B, 80)."""
        known = weights.current[:, 1:, 0]  # (B, 1 + 2 F)
        levels = torch.cat([past.mean[:, None], each.mean], dim=1).mean(dim=2)
        level = (levels * known).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1e-9)
        return Moments(prior.mean + level, prior.variance.expand(len(level), -1))


def offline_features(pcm: Tensor) -> Tensor:
    """Features of a whole recording, equal to upstream's extractor: pcm (1, T), padded -> (1, F, 160)."""
    mel = log_mel(pcm)
    mel = (mel - mel.mean(1, keepdim=True)) / torch.sqrt(mel.var(1, keepdim=True) + VARIANCE_FLOOR)
    return mel.unflatten(1, (-1, MEL_PER_FRAME)).flatten(2)
