"""The ISTFT head with its overlap tail: each spectral frame is added once, so chunk borders leave no seam.

Frame f of 4 hops lies at [480 f - 720, 480 f + 1200) of the output ("same" padding, Vocos), so a hop needs two frames
to its right. A step adds the frames up to two past the committed ones if the lookahead has them, and its audio starts
`lag` hops before the window's first frame (config.synthesis_lag_frames). The tail is audio that was added but not yet
emitted. A steady step adds one chunk of frames; the window's other frames matter only at a stream's start or end.
"""

from typing import Any

import torch
from torch import Tensor

from neucodec_streaming.config import ISTFT_REACH, StreamConfig
from neucodec_streaming.layers.step import StepPlan

PARTS = 4
"""Hops of a frame."""


class StreamingISTFT:
    """A `NeuCodecISTFTHead`, stepped. Its output lags by `config.synthesis_lag_frames` behind the committed frames."""

    def __init__(self, head: Any, config: StreamConfig) -> None:
        self.head = head
        self.config = config
        self.lag = config.synthesis_lag_frames
        self.ahead = ISTFT_REACH - self.lag
        self.hop = head.hop_length
        self.tail_samples = head.n_fft - self.hop // 2

    def new_state(self, slots: int) -> Tensor:
        """The tail: overlap-added audio that was not emitted yet, (slots, 3.5 hops)."""
        return torch.zeros(slots, self.tail_samples, device=self.head.window.device)

    def step(self, x: Tensor, tail: Tensor, plan: StepPlan) -> Tensor:
        """x (B, F, D) -> audio (B, (F + lag) * hop) in float32; samples after the row's frames are undefined."""
        frames = x.shape[1]
        added = self._added(frames, plan)
        audio = self._overlap_add(x, added[:, self.lag + PARTS - 1 :], plan)
        start = self.head.padding  # 1.5 hops: the buffer begins that far before the audio of this step
        audio[:, start : start + self.tail_samples] += plan.load(tail)
        plan.store(tail, self._tail_of(audio[:, start:], plan))
        out = slice(start, start + (frames + self.lag) * self.hop)
        return audio[:, out] / self._energy(added)[:, out].clamp(min=1e-11)

    def _tail_of(self, audio: Tensor, plan: StepPlan) -> Tensor:
        """The audio after the committed frames in (B, samples): (B, 3.5 hops)."""
        if plan.chunk is not None:
            return audio.narrow(1, plan.chunk * self.hop, self.tail_samples)
        places = (plan.commit * self.hop)[:, None] + plan.index(self.tail_samples)
        return audio.gather(1, places.clamp(max=audio.shape[1] - 1))  # only a stream's end commits more, without a tail

    def _added(self, frames: int, plan: StepPlan) -> Tensor:
        """Mask of the frames in the buffer after this step, including earlier steps': float (B, lag + F + 6)."""
        index = plan.index(self.lag + frames + 2 * PARTS - 2) - (self.lag + PARTS - 1)
        until = torch.minimum(plan.commit + self.ahead, plan.valid)
        return ((index >= -plan.position[:, None]) & (index < until[:, None])).float()

    def _energy(self, added: Tensor) -> Tensor:
        """Overlap-added squares of the window, (B, (F + lag + 3) * hop)."""
        parts = self.head.window.float().square().view(PARTS, self.hop).flip(0)
        return (added.unfold(1, PARTS, 1) @ parts).flatten(1)  # (B, F + lag + 3, 4) @ (4, hop)

    def _overlap_add(self, x: Tensor, added: Tensor, plan: StepPlan) -> Tensor:
        """x (B, F, D) -> overlap-added frames of this step, (B, (F + lag + 3) * hop): frame j starts at hop j + lag."""
        frames, chunk = x.shape[1], slice(self.ahead, self.ahead + self.config.chunk_frames)
        first, spans = chunk.start, self._windowed(x[:, chunk])
        if plan.edges:
            first, spans = 0, self._with_others(x, spans, chunk)
            new = plan.index(frames) >= torch.where(plan.position > 0, self.ahead, 0)[:, None]
            spans = spans * (added[:, :frames] * new)[..., None]
        total = spans.new_zeros(len(x), frames + self.lag + PARTS - 1, self.hop)
        for part in range(PARTS):
            begin = self.lag + first + part
            total[:, begin : begin + spans.shape[1]] += spans[:, :, part * self.hop : (part + 1) * self.hop]
        return total.flatten(1)

    def _with_others(self, x: Tensor, spans: Tensor, chunk: slice) -> Tensor:
        """The chunk's spans (B, C, n_fft) among those of the other frames, in order: (B, F, n_fft)."""
        if spans.shape[1] == x.shape[1]:
            return spans
        others = self._windowed(torch.cat([x[:, : chunk.start], x[:, chunk.stop :]], dim=1))
        return torch.cat([others[:, : chunk.start], spans, others[:, chunk.start :]], dim=1)

    def _windowed(self, x: Tensor) -> Tensor:
        """x (B, F, D) -> windowed audio of each frame, (B, F, n_fft)."""
        magnitude, phase = self.head.linear(x).float().chunk(2, dim=-1)
        magnitude = magnitude.exp().clamp_(max=1e2)
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())  # torch.polar is slow on a CPU
        return torch.fft.irfft(spectrum, self.head.n_fft, dim=-1) * self.head.window.float()
