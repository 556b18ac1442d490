"""Training-time twin of NeuCodec's anti-aliased SnakeBeta: the same numbers, many times faster on a CPU.

The original doubles the rate with a 12-tap transposed depthwise convolution, activates, and halves it with another;
both are slow where channels are few. Here each filter is a small Toeplitz matrix applied to blocks of the signal (one
matrix product), and the backward pass is written out. `FastActivation` shares its parameters with the module that it
replaces, so that a checkpoint knows nothing of it.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.neucodec.modeling_neucodec import NeuCodecAntiAliasedActivation1d, kaiser_sinc_filter1d

_BLOCK = 16
_TAPS = 12
_EPSILON = 1e-9


class FastActivation(nn.Module):
    """Equals `NeuCodecAntiAliasedActivation1d` with ratios of 2 and 12 taps: (B, C, T) -> (B, C, T)."""

    def __init__(self, original: NeuCodecAntiAliasedActivation1d) -> None:
        super().__init__()
        sizes = (original.upsample.kernel_size, original.downsample.kernel_size, original.upsample.ratio)
        if sizes != (_TAPS, _TAPS, 2):
            raise ValueError(f"taps and ratio are {sizes}; only {(_TAPS, _TAPS, 2)} can be replaced")
        self.act = original.act

    def forward(self, hidden: Tensor) -> Tensor:
        return _AntiAliasedSnake.apply(hidden, self.act.alpha, self.act.beta)


def replace_activations(module: nn.Module) -> None:
    """Replaces every anti-aliased activation inside `module` by its fast twin; names of parameters stay."""
    for name, child in module.named_children():
        if isinstance(child, NeuCodecAntiAliasedActivation1d):
            setattr(module, name, FastActivation(child))
        else:
            replace_activations(child)


class _AntiAliasedSnake(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        batch, channels, samples = x.shape
        a, inverse = _column(alpha.exp(), batch), _column(1.0 / (beta.exp() + _EPSILON), batch)
        doubled = _upsample(x.reshape(batch * channels, samples))  # (B * C, 2T)
        ctx.save_for_backward(doubled, a, inverse)
        ctx.channels = channels
        return _downsample(_snake(doubled, a, inverse)).view(batch, channels, samples)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        doubled, a, inverse = ctx.saved_tensors
        batch, channels, samples = grad.shape
        grad_active = _downsample_adjoint(grad.reshape(batch * channels, samples))
        grad_doubled, grad_alpha, grad_beta = _snake_backward(grad_active, doubled, a, inverse)
        grad_x = _upsample_adjoint(grad_doubled).view(batch, channels, samples)
        return grad_x, grad_alpha.view(batch, channels).sum(0), grad_beta.view(batch, channels).sum(0)


def _snake(x: Tensor, a: Tensor, inverse: Tensor) -> Tensor:
    return torch.addcmul(x, (x * a).sin_().square_(), inverse)


def _snake_backward(grad: Tensor, x: Tensor, a: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the snake for its input (R, 2T), log alpha (R,) and log beta (R,)."""
    angle = x * (2.0 * a)
    sine = torch.sin(angle) * grad
    versine = (1.0 - torch.cos(angle)) * grad
    grad_x = torch.addcmul(grad, sine, a * inverse)
    grad_alpha = (sine * x).sum(1) * (a * inverse).squeeze(1)
    return grad_x, grad_alpha, -0.5 * versine.sum(1) * inverse.squeeze(1)


def _column(per_channel: Tensor, batch: int) -> Tensor:
    """(C,) -> (B * C, 1)."""
    return per_channel.detach().repeat(batch).unsqueeze(1)


def _upsample(x: Tensor) -> Tensor:
    """(R, T) -> (R, 2T): output j is the sum over m of 2 f[j + 5 - 2m] x[m], the edges of x replicated."""
    padded = F.pad(x.unsqueeze(0), (3, 3), mode="replicate").squeeze(0)
    return _blocks(padded, _up_matrix(), _BLOCK, 2 * x.shape[1])


def _downsample(x: Tensor) -> Tensor:
    """(R, 2T) -> (R, T): output n is the sum over k of f[k] x[2n + k - 5], the edges of x replicated."""
    padded = F.pad(x.unsqueeze(0), (5, 6), mode="replicate").squeeze(0)
    return _blocks(padded, _down_matrix(), 2 * _BLOCK, x.shape[1] // 2)


def _downsample_adjoint(grad: Tensor) -> Tensor:
    """(R, T) -> (R, 2T)."""
    samples = grad.shape[1]
    spread = _blocks(F.pad(grad, (5, 6)), _up_matrix(adjoint=True), _BLOCK, 2 * samples + 11)
    return _fold_edges(spread, 5, 2 * samples)


def _upsample_adjoint(grad: Tensor) -> Tensor:
    """(R, 2T) -> (R, T)."""
    samples = grad.shape[1] // 2
    gathered = _blocks(F.pad(grad, (11, 12)), _down_matrix(adjoint=True), 2 * _BLOCK, samples + 6)
    return _fold_edges(gathered, 3, samples)


def _fold_edges(padded: Tensor, left: int, length: int) -> Tensor:
    """Adjoint of replicating the edges: what fell on the padding counts for the first and the last element."""
    inner = padded[:, left : left + length].contiguous()
    inner[:, 0] += padded[:, :left].sum(1)
    inner[:, -1] += padded[:, left + length :].sum(1)
    return inner


def _blocks(x: Tensor, matrix: Tensor, step: int, length: int) -> Tensor:
    """Multiplies overlapping windows of x, one every `step`, by `matrix` (window, out); joins the results, cut."""
    window, out = matrix.shape
    count = -(-length // out)
    missing = (count - 1) * step + window - x.shape[1]
    if missing > 0:
        x = F.pad(x, (0, missing))
    windows = x.unfold(1, window, step)[:, :count]  # (R, count, window)
    return (windows @ matrix.to(x)).reshape(x.shape[0], count * out)[:, :length]


@cache
def _up_matrix(adjoint: bool = False) -> Tensor:
    """One input apart is two outputs apart; tap of input i for output j as the two callers index them."""
    taps = kaiser_sinc_filter1d(cutoff=0.25, half_width=0.3, kernel_size=_TAPS).flatten()
    halo, offset, gain = (5, 10, 1.0) if adjoint else (6, 11, 2.0)
    matrix = torch.zeros(_BLOCK + halo, 2 * _BLOCK)
    for j in range(2 * _BLOCK):
        for i in range(_BLOCK + halo):
            if 0 <= j + offset - 2 * i < _TAPS:
                matrix[i, j] = gain * taps[j + offset - 2 * i]
    return matrix


@cache
def _down_matrix(adjoint: bool = False) -> Tensor:
    """(2 * block + 10, block): two inputs apart is one output apart."""
    taps = kaiser_sinc_filter1d(cutoff=0.25, half_width=0.3, kernel_size=_TAPS).flatten()
    gain = 2.0 if adjoint else 1.0
    matrix = torch.zeros(2 * _BLOCK + 10, _BLOCK)
    for n in range(_BLOCK):
        matrix[2 * n : 2 * n + _TAPS, n] = gain * taps
    return matrix


def compile_elementwise() -> None:
    """Fuses the elementwise parts with torch.compile, which needs a C++ compiler; halves the time of an activation."""
    global _snake, _snake_backward
    _snake = torch.compile(_snake, dynamic=True)
    _snake_backward = torch.compile(_snake_backward, dynamic=True)
