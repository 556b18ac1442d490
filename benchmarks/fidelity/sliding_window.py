"""The baseline: the whole offline model, run again on a sliding window for every chunk.

A window consists of history, the new frames, and the frames ahead that the latency allows; only the new ones are kept.
There is no state between windows, and the first ones are shorter, without made-up history. It is as good as possible
without changing the model: successive windows of audio are cross-faded over one frame (the older window has already
computed that frame as lookahead, so it adds no latency), and the feature extractor's normalisation covers four seconds.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neucodec_streaming.codec import Codec
from neucodec_streaming.config import INPUT_HOP, MEL_OVERHANG, OUTPUT_HOP, StreamConfig
from neucodec_streaming.layers.mel import offline_features

ACOUSTIC_REACH_FRAMES = 26
"""More than the acoustic encoder's left context: earlier frames change nothing, so they need not be computed."""
BATCH = 16


@dataclass(frozen=True)
class Geometry:
    """Numbers of frames of 20 ms."""

    back: int
    new: int
    ahead: int

    @property
    def frames(self) -> int:
        return self.back + self.new + self.ahead


NEUTTS = Geometry(back=50, new=25, ahead=5)
NEUTTS_LATENCY_MS = 600.0


def encode_geometry(config: StreamConfig) -> Geometry:
    """Returns the encoder's window at the latency of `config`: 4 s back."""
    return Geometry(200, config.chunk_frames, config.lookahead_frames)


def decode_geometry(config: StreamConfig) -> Geometry:
    """Returns the decoder's window at the latency of `config`, where the ISTFT's delay is lookahead: 1 s back."""
    return Geometry(50, config.chunk_frames, config.lookahead_frames + config.synthesis_lag_frames)


@dataclass(frozen=True)
class SlidingWindow:
    """Frames start..end are computed, first..stop are new."""

    start: int
    first: int
    stop: int
    end: int

    @property
    def shape(self) -> tuple[int, int]:
        """The same for all windows of a batch."""
        return self.first - self.start, self.end - self.start


def windows(frames: int, whole: int, geometry: Geometry) -> Iterator[SlidingWindow]:
    """Yields the windows of a recording, of which `whole` frames are usable before its end; the last takes the rest."""
    first = 0
    while first + geometry.new + geometry.ahead <= whole:
        stop = first + geometry.new
        yield SlidingWindow(max(first - geometry.back, 0), first, stop, stop + geometry.ahead)
        first = stop
    if first < frames:
        yield SlidingWindow(max(first - geometry.back, 0), first, frames, frames)


def encode(codec: Codec, recordings: Sequence[np.ndarray], geometry: Geometry) -> list[np.ndarray]:
    """float32 at 16 kHz (T,) each -> tokens uint16 (T // 320,) each."""
    tokens = [np.zeros(len(pcm) // INPUT_HOP, np.uint16) for pcm in recordings]
    jobs = defaultdict(list)
    for index, pcm in enumerate(recordings):
        for window in windows(len(tokens[index]), (len(pcm) - MEL_OVERHANG) // INPUT_HOP, geometry):
            jobs[window.shape].append((index, window))
    for batch in _batches(jobs):
        x = torch.from_numpy(np.stack([_samples(recordings[index], window) for index, window in batch]))
        past = batch[0][1].shape[0]
        for (index, window), row in zip(batch, _tokens(codec.model, x, past), strict=True):
            tokens[index][window.first : window.stop] = row[: window.stop - window.first]
    return tokens


def decode(codec: Codec, recordings: Sequence[np.ndarray], geometry: Geometry) -> list[list[np.ndarray]]:
    """Tokens uint16 (F,) each -> for each the pieces of audio at 24 kHz, one per window, F * 480 samples in all."""
    pieces: list[list[np.ndarray]] = [[] for _ in recordings]
    jobs = defaultdict(list)
    order = []
    for index, tokens in enumerate(recordings):
        for window in windows(len(tokens), len(tokens), geometry):
            jobs[window.shape].append((index, window))
            order.append((index, window))
    audio = {}
    for batch in _batches(jobs):
        x = np.stack([recordings[index][window.start : window.end] for index, window in batch]).astype(np.int64)
        with torch.inference_mode():
            y = codec.model.decode(torch.from_numpy(x)[:, None]).audio_values[:, 0].numpy()
        audio |= dict(zip(batch, y, strict=True))
    fading: np.ndarray | None = None
    for index, window in order:
        y = audio[index, window][(window.first - window.start) * OUTPUT_HOP :]
        kept = (window.stop - window.first) * OUTPUT_HOP
        piece = y[:kept].copy()
        if window.first and fading is not None:
            piece[:OUTPUT_HOP] = cross_faded(fading, piece[:OUTPUT_HOP])
        fading = y[kept : kept + OUTPUT_HOP] if len(y) > kept else None
        pieces[index].append(piece)
    return pieces


def cross_faded(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    weight = (np.arange(len(new), dtype=np.float32) + 0.5) / len(new)
    return old * (1 - weight) + new * weight


def _batches(jobs: dict) -> Iterator[list]:
    for group in jobs.values():
        for start in range(0, len(group), BATCH):
            yield group[start : start + BATCH]


def _samples(pcm: np.ndarray, window: SlidingWindow) -> np.ndarray:
    """Returns samples padded to one hop more than the window's frames, as upstream pads."""
    ends = window.stop == len(pcm) // INPUT_HOP
    heard = pcm[window.start * INPUT_HOP : len(pcm) if ends else window.end * INPUT_HOP + MEL_OVERHANG]
    return np.pad(heard, (0, (window.end - window.start + 1) * INPUT_HOP - len(heard)))


@torch.inference_mode()
def _tokens(model: Any, pcm: Tensor, past: int) -> np.ndarray:
    """Windows (B, T) of which `past` frames are history -> their other frames' tokens, (B, F).

    Equals `model.encode`, without the frames of the acoustic branch that affect no kept token.
    """
    semantic = model.semantic_encoder(offline_features(pcm)).last_hidden_state.transpose(1, 2)
    semantic = model.semantic_adapter(semantic)[:, :, past:]
    skipped = max(past - ACOUSTIC_REACH_FRAMES, 0)
    acoustic = model.acoustic_encoder(pcm[:, None, skipped * INPUT_HOP :])[:, :, past - skipped :]
    frames = min(semantic.shape[2], acoustic.shape[2])
    both = torch.cat([semantic[:, :, :frames], acoustic[:, :, :frames]], dim=1)
    return model.quantizer(model.fc_encoder(both.transpose(1, 2)))[1][..., 0].numpy().astype(np.uint16)
