"""A crop computed as in a stream: both branches in windows of a chunk and its lookahead, all windows at once.

A live stream computes each chunk together with a few frames of lookahead; only the chunk is committed, and the
following windows see the committed values. Here the frames of a crop are laid out as windows (B, N, S, D), S = chunk +
lookahead, and every layer takes its left context from the chunks of the previous windows. The results equal those of
`EncoderStream` and `DecoderStream`, and have gradients. Two things are left out: the acoustic encoder, 99.8 % of whose
response lies within five frames, and the limits on context and on the weight of the past, which a crop is too short to
reach.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import NeuCodecModel

from neucodec_streaming.config import ISTFT_REACH
from neucodec_streaming.layers.fbank import log_mel

MeanVariance = tuple[Tensor, Tensor]
"""Mean and variance of G statistics, (G,) each."""

_VARIANCE_FLOOR = 1e-7


@dataclass(frozen=True)
class StreamPriors:
    """A stream's statistics before any input, which weigh `frames`: those of `stream.json`, or none."""

    frames: float
    mel: MeanVariance
    group_norm: tuple[MeanVariance, ...]


def read_priors(stream_json: Path, device: str = "cpu") -> StreamPriors:
    content = json.loads(stream_json.read_text())
    mel, *norms = (
        (torch.tensor(entry["mean"], device=device), torch.tensor(entry["variance"], device=device))
        for entry in (content["mel"], *content["group_norm"])
    )
    return StreamPriors(float(content["prior_weight"]), mel, tuple(norms))


def no_priors(device: str = "cpu") -> StreamPriors:
    mel, norm = torch.zeros(80, device=device), torch.zeros(32, device=device)
    return StreamPriors(0.0, (mel, mel), ((norm, norm),) * 8)


@dataclass(frozen=True)
class Windows:
    """The layout of a crop of `length` frames."""

    chunk: int
    lookahead: int
    length: int
    device: str = "cpu"

    @property
    def count(self) -> int:
        return -(-self.length // self.chunk)

    @property
    def size(self) -> int:
        return self.chunk + self.lookahead

    def exists(self) -> Tensor:
        """(N, S): 1 for the frames within the crop."""
        return (self.starts()[:, None] + torch.arange(self.size, device=self.device) < self.length).float()

    def starts(self) -> Tensor:
        """(N,): the first frame of each window, which equals the number of frames committed before it."""
        return torch.arange(self.count, device=self.device) * self.chunk

    def split(self, x: Tensor) -> Tensor:
        """(B, F, D) -> (B, N, S, D), zero beyond the crop."""
        x = F.pad(x, (0, 0, 0, self.count * self.chunk + self.lookahead - self.length))
        return x.unfold(1, self.size, self.chunk).transpose(2, 3)

    def committed(self, x: Tensor) -> Tensor:
        """(B, N, S, D) -> (B, N * C, D), the committed frames of each window."""
        return x[:, :, : self.chunk].flatten(1, 2)

    def left(self, x: Tensor, frames: int) -> Tensor:
        """The committed frames before each window, zero before the crop: (B, N, S, D) -> (B, N, frames, D)."""
        before = F.pad(self.committed(x)[:, : (self.count - 1) * self.chunk], (0, 0, frames, 0))
        return before.unfold(1, frames, self.chunk).transpose(2, 3)

    def convolve(self, x: Tensor, layer: nn.Conv1d, left: int, right: int) -> Tensor:
        """A convolution over time with zeros on the right: (B, N, S, D) -> (B, N, S, E)."""
        x = x * self.exists().unsqueeze(2).to(x.dtype)
        parts = [self.left(x, left), x, x.new_zeros(*x.shape[:2], right, x.shape[3])]
        wide = torch.cat(parts, dim=2).flatten(0, 1).transpose(1, 2)  # (B * N, D, left + S + right)
        out = F.conv1d(wide, layer.weight, layer.bias, groups=layer.groups)
        return out.transpose(1, 2).unflatten(0, x.shape[:2])

    def moments(
        self, each: Tensor, squares: Tensor, prior: MeanVariance, prior_weight: float
    ) -> tuple[MeanVariance, Tensor]:
        """Mean and variance (B, N, G) of prior, past and window together, and the number of their elements (N, 1).

        `each` and `squares` (B, N, S, G): mean of every element and of its square.
        """
        exists = self.exists()
        weights = exists.unsqueeze(2)
        mean, square = prior[0], prior[1] + prior[0].square()
        sums = [prior_weight * mean, prior_weight * square]
        for at, x in enumerate((each * weights, squares * weights)):
            chunks = x[:, :, : self.chunk].sum(2)  # (B, N, G)
            sums[at] = sums[at] + chunks.cumsum(1) - chunks + x.sum(2)
        count = prior_weight + (self.starts() + exists.sum(1)).unsqueeze(1)
        mean = sums[0] / count
        return (mean, (sums[1] / count - mean.square()).clamp(min=0.0)), count

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, distances: nn.Embedding | None = None) -> Tensor:
        """Attention to the frames committed before and to the window: (B, N, S, D) each -> (B, N, S, D).

        `distances` embeds how many frames a key lies to the right, clamped to [-left, right].
        """
        past_k, past_v = (_heads(self.committed(x).unsqueeze(1), heads).squeeze(2) for x in (k, v))  # (B, H, N * C, d)
        q, k, v = (_heads(x, heads) for x in (q, k, v))  # (B, H, N, S, d)
        scale = q.shape[-1] ** -0.5
        past = (q.flatten(2, 3) @ past_k.transpose(2, 3)).unflatten(2, (self.count, self.size))
        scores = torch.cat([past, q @ k.transpose(3, 4)], dim=4) * scale  # (B, H, N, S, N * C + S)
        if distances is not None:
            places = self._places(distances.num_embeddings)
            by_place = q @ distances.weight.T.to(q.dtype)  # (B, H, N, S, P)
            scores = scores + by_place.gather(4, places.expand(*scores.shape[:2], -1, -1, -1)) * scale
        shares = (scores.float() + self._hidden()).softmax(dim=4).to(v.dtype)
        steps = self.count * self.chunk
        out = (shares[..., :steps].flatten(2, 3) @ past_v).unflatten(2, (self.count, self.size))
        return (out + shares[..., steps:] @ v).permute(0, 2, 3, 1, 4).flatten(3)

    def _hidden(self) -> Tensor:
        """(N, 1, N * C + S): minus infinity for keys that a window does not see."""
        past = torch.arange(self.count * self.chunk, device=self.device)[None] < self.starts()[:, None]
        seen = torch.cat([past, self.exists().bool()], dim=1)
        return torch.zeros(seen.shape, device=self.device).masked_fill(~seen, float("-inf")).unsqueeze(1)

    def _places(self, places: int) -> Tensor:
        """Row of each query's distance to each key in the table of distances: (N, S, N * C + S)."""
        right = 8
        window = torch.arange(self.size, device=self.device)
        query = self.starts()[:, None, None] + window[:, None]  # (N, S, 1)
        past = torch.arange(self.count * self.chunk, device=self.device) - query
        own = (window - window[:, None]).expand(self.count, -1, -1)
        return torch.cat([past, own], dim=2).clamp(right + 1 - places, right) + places - 1 - right


def semantic(model: NeuCodecModel, heard: Tensor, windows: Windows, priors: StreamPriors) -> Tensor:
    """Heard (B, (F + 1) * 320) at 16 kHz -> (B, Ds, F)."""
    encoder = model.semantic_encoder
    x, _ = encoder.feature_projection(_features(heard, windows, priors))
    for layer in encoder.encoder.layers:
        x = x + 0.5 * layer.ffn1(layer.ffn1_layer_norm(x))
        attention, normal = layer.self_attn, layer.self_attn_layer_norm(x)
        q, k, v = attention.linear_q(normal), attention.linear_k(normal), attention.linear_v(normal)
        x = x + attention.linear_out(windows.attend(q, k, v, attention.num_heads, attention.distance_embedding))
        x = x + _convolution(layer.conv_module, x, windows)
        x = layer.final_layer_norm(x + 0.5 * layer.ffn2(layer.ffn2_layer_norm(x)))
    adapter = model.semantic_adapter
    first = adapter.act1(windows.convolve(x, adapter.conv1, 1, 1))
    x = windows.convolve(adapter.act2(windows.convolve(first, adapter.conv2, 1, 1)), adapter.conv3, 1, 1) + first
    return windows.committed(windows.convolve(x, adapter.conv4, 1, 1))[:, : windows.length].transpose(1, 2)


def decode(decoder: nn.Module, latents: Tensor, windows: Windows, priors: StreamPriors) -> Tensor:
    """Latents (B, F, D) -> audio (B, F * 480) at 24 kHz."""
    norms = iter(priors.group_norm)
    x = windows.convolve(windows.split(decoder.fc(latents)), decoder.embed, 3, 3)
    for block in decoder.prior_net:
        x = _residual(block, x, windows, (next(norms), next(norms)), priors.frames)
    for layer in decoder.layers:
        attention, normal = layer.self_attn, layer.input_layernorm(x)
        q, k, v = attention.q_proj(normal), attention.k_proj(normal), attention.v_proj(normal)
        x = x + attention.o_proj(windows.attend(q, k, v, decoder.num_attention_heads))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    for block in decoder.post_net:
        x = _residual(block, x, windows, (next(norms), next(norms)), priors.frames)
    # The head adds each frame once, as soon as the audio of a chunk needs it.
    ahead = min(ISTFT_REACH, windows.lookahead)
    added = torch.cat([x[:, 0, :ahead], x[:, :, ahead : windows.chunk + ahead].flatten(1, 2)], dim=1)
    return decoder.head(decoder.norm(added[:, : windows.length])).squeeze(1)


def _features(heard: Tensor, windows: Windows, priors: StreamPriors) -> Tensor:
    """(B, (F + 1) * 320) -> (B, N, S, 160): two mel frames each, normalised by each window's known statistics."""
    mel = log_mel(heard)[:, : 2 * windows.length]
    double = Windows(2 * windows.chunk, 2 * windows.lookahead, 2 * windows.length, windows.device)
    x, exists = double.split(mel), double.exists()
    chunks = (x.mean(3) * exists)[:, :, : double.chunk].sum(2)
    known = double.starts() + exists.sum(1)
    level = (chunks.cumsum(1) - chunks + (x.mean(3) * exists).sum(2)) / known  # (B, N)
    prior = priors.mel[0] + level.unsqueeze(2), priors.mel[1]
    (mean, variance), count = double.moments(x, x.square(), prior, 2.0 * priors.frames)
    variance = variance * (count / (count - 1.0).clamp(min=1.0)) + _VARIANCE_FLOOR
    x = (x - mean.unsqueeze(2)) / variance.sqrt().unsqueeze(2)
    return x.unflatten(2, (-1, 2)).flatten(3)


def _convolution(module: nn.Module, x: Tensor, windows: Windows) -> Tensor:
    """Its depthwise part is causal: (B, N, S, D) -> (B, N, S, D)."""
    x = F.glu(F.linear(module.layer_norm(x), module.pointwise_conv1.weight.squeeze(2)), dim=3)
    x = windows.convolve(x, module.depthwise_conv, module.depthwise_conv.kernel_size[0] - 1, 0)
    x = module.activation(module.depthwise_layer_norm(x))
    return F.linear(x, module.pointwise_conv2.weight.squeeze(2))


def _residual(
    block: nn.Module, x: Tensor, windows: Windows, priors: tuple[MeanVariance, MeanVariance], frames: float
) -> Tensor:
    inner = x
    for norm, layer, prior in ((block.norm1, block.conv1, priors[0]), (block.norm2, block.conv2, priors[1])):
        inner = windows.convolve(F.silu(_group_norm(norm, inner, windows, prior, frames)), layer, 1, 1)
    return x + inner


def _group_norm(norm: nn.GroupNorm, x: Tensor, windows: Windows, prior: MeanVariance, frames: float) -> Tensor:
    """Uses the stream's running statistics: (B, N, S, D) -> (B, N, S, D)."""
    grouped = x.float().unflatten(3, (norm.num_groups, -1))  # (B, N, S, G, D / G)
    (mean, variance), _ = windows.moments(grouped.mean(4), grouped.square().mean(4), prior, frames)
    mean, scale = (y[:, :, None, :, None] for y in (mean, torch.rsqrt(variance + norm.eps)))
    return ((grouped - mean) * scale).flatten(3) * norm.weight + norm.bias


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, S, D) -> (B, H, N, S, d)."""
    return x.unflatten(3, (heads, -1)).permute(0, 3, 1, 2, 4)
