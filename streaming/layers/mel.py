"""The semantic branch's input: log-mel frames normalised by running statistics, two of them a token.

The offline feature extractor normalises every mel bin by mean and variance over the recording. Here they run over the
stream; the prior is the shape of speech relative to its overall level, and the level comes from the stream itself.
"""

import torch
from torch import Tensor

from streaming.layers.features import MEL_BINS, log_mel
from streaming.layers.norm import CAP_FRAMES, Moments, moments_of_frames, new_moments
from streaming.layers.step import Step

MEL_PER_FRAME = 2
VARIANCE_FLOOR = 1e-7


class StreamingMel:
    """PCM window to normalised features. `prior`: moments (1, 80) relative to the overall level, or None."""

    def __init__(self, prior: Moments | None) -> None:
        self.prior = prior

    def new_state(self, slots: int, like: Tensor) -> Moments:
        return new_moments(like, slots, MEL_BINS)

    def step(self, pcm: Tensor, state: Moments, at: Step) -> Tensor:
        """pcm (B, T) -> features (B, F, 160), T at least F * 320 + 240."""
        mel = log_mel(pcm.float())
        mel = mel[:, : mel.shape[1] // MEL_PER_FRAME * MEL_PER_FRAME]
        each = moments_of_frames(mel[..., None])  # (B, M, 80, 1)
        committed = state.load(at)
        all_now = committed.merge(each.over(at.exists(mel.shape[1], MEL_PER_FRAME)))
        if self.prior is not None:
            level = all_now.mean.mean(dim=1, keepdim=True)
            all_now = Moments(self.prior.count, self.prior.mean + level, self.prior.m2).merge(all_now)
        now = each.over(at.commits(mel.shape[1], MEL_PER_FRAME))
        state.store(at, committed.merge(now).capped(CAP_FRAMES * MEL_PER_FRAME))
        variance = all_now.m2 / (all_now.count - 1).clamp(min=1)
        normal = (mel - all_now.mean[:, None]) / torch.sqrt(variance + VARIANCE_FLOOR)[:, None]
        return normal.unflatten(1, (-1, MEL_PER_FRAME)).flatten(2)  # (B, 2 F, 80) -> (B, F, 160)


def offline_features(pcm: Tensor) -> Tensor:
    """Features of a whole recording as upstream's extractor makes them: pcm (1, T), padded -> (1, F, 160)."""
    mel = log_mel(pcm)
    mel = (mel - mel.mean(1, keepdim=True)) / torch.sqrt(mel.var(1, keepdim=True) + VARIANCE_FLOOR)
    return mel.unflatten(1, (-1, MEL_PER_FRAME)).flatten(2)
