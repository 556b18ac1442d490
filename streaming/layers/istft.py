"""The ISTFT head with its overlap tail: each spectral frame is added once, so a chunk's border leaves no seam.

Frame f of 4 hops lies at [480 f - 720, 480 f + 1200) of the output ("same" padding, Vocos), so a hop needs two frames
to its right. A step adds the frames up to two past the committed ones, as far as the lookahead has them, and its audio
starts `lag` hops before the window's first frame (config.synthesis_lag_frames). What was added but not yet given out is
the tail.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streaming.config import ISTFT_REACH
from streaming.layers.step import Step


@dataclass
class Tail:
    """Overlap-added audio and window energy that were not given out yet, each (slots, 3.5 hops)."""

    audio: Tensor
    energy: Tensor


class StreamingISTFT:
    """A `NeuCodecISTFTHead`, stepped. `lag`: hops by which the output lags behind the committed frames."""

    def __init__(self, head: Any, lag: int) -> None:
        self.head = head
        self.lag = lag
        self.ahead = ISTFT_REACH - lag
        self.hop = head.hop_length
        self.tail_samples = head.n_fft - self.hop // 2

    def new_state(self, slots: int) -> Tail:
        empty = torch.zeros(slots, self.tail_samples, device=self.head.linear.weight.device)
        return Tail(empty, empty.clone())

    def step(self, x: Tensor, tail: Tail, at: Step) -> Tensor:
        """x (B, F, D) -> audio (B, (F + lag) * hop) in float32; what is right of the row's frames is not meant."""
        frames = x.shape[1]
        index = torch.arange(frames, device=x.device)
        added_before = torch.where(at.position > 0, self.ahead, 0)[:, None]
        added_now = torch.minimum(at.commit + self.ahead, at.valid)[:, None]
        mask = ((index >= added_before) & (index < added_now)).float()[..., None]  # (B, F, 1)
        window = self.head.window.float()
        audio = self._overlap_add(self._time_frames(x) * window * mask)
        energy = self._overlap_add(window.square() * mask)
        start = self.head.padding  # 1.5 hops: the buffer begins that far before the audio of this step
        kept = slice(start, start + self.tail_samples)
        audio[:, kept] += at.load(tail.audio)
        energy[:, kept] += at.load(tail.energy)
        new_tail = (start + at.commit * self.hop)[:, None] + torch.arange(self.tail_samples, device=x.device)
        new_tail = new_tail.clamp(max=audio.shape[1] - 1)  # only an ending commits that much, and leaves no tail
        at.store(tail.audio, audio.gather(1, new_tail))
        at.store(tail.energy, energy.gather(1, new_tail))
        out = slice(start, start + (frames + self.lag) * self.hop)
        return audio[:, out] / energy[:, out].clamp(min=1e-11)

    def _time_frames(self, x: Tensor) -> Tensor:
        """x (B, F, D) -> (B, F, n_fft)."""
        magnitude, phase = self.head.linear(x).float().chunk(2, dim=-1)
        return torch.fft.irfft(torch.polar(magnitude.exp().clamp(max=1e2), phase), self.head.n_fft, dim=-1)

    def _overlap_add(self, time_frames: Tensor) -> Tensor:
        """(B, F, 4 hops) -> (B, (F + lag + 3) * hop): frame j starts at hop j + lag."""
        frames = time_frames.shape[1]
        parts = time_frames.unflatten(2, (4, self.hop))  # (B, F, 4, hop)
        hops = frames + self.lag + 3
        total = time_frames.new_zeros(len(time_frames), hops, self.hop)
        for part in range(4):
            first = self.lag + part
            total[:, first : first + frames] += parts[:, :, part]
        return total.flatten(1)
