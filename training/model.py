"""The bundled model: its configuration, its initialisation for training, and a forward pass with gradients.

`nano` is transformers' `NeuCodecModel` at small size; nothing here is needed to run it. The quantiser and the ISTFT
head start where learning is possible, and the semantic branch gets gradients (the library's `encode` gives it none).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import NeuCodecConfig, NeuCodecModel, Wav2Vec2BertConfig

from neucodec_streaming.layers.fbank import log_mel
from training.antialias import replace_activations
from training.windows import StreamPriors, Windows, decode, semantic

WEIGHTS_VERSION = 6
"""Part of the exported configuration: tokens of different versions are incompatible."""

DECODER_LAYERS = 4
# The target distribution of the quantiser's input: its quartiles are the borders between the four levels.
QUANTISER_MEAN = -0.2
QUANTISER_SPREAD = 0.9
_HEAD_LOG_MAGNITUDE = -5.0
_VARIANCE_FLOOR = 1e-7


@dataclass(frozen=True)
class Reconstruction:
    """Audio (B, F * 480) at 24 kHz, and the quantiser's input (B, F, 8)."""

    audio: Tensor
    projected: Tensor


def nano_config(decoder_layers: int = DECODER_LAYERS) -> NeuCodecConfig:
    """Few and wide layers; the largest stride comes last, so that the acoustic branch hardly sees beyond 100 ms."""
    semantic = Wav2Vec2BertConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        output_hidden_size=128,
        feature_projection_input_dim=160,
        position_embeddings_type="relative_key",
        apply_spec_augment=False,
        layerdrop=0.0,
        conformer_conv_dropout=0.0,
        hidden_dropout=0.0,
        activation_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        mask_time_prob=0.0,
    )
    config = NeuCodecConfig(
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=decoder_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        encoder_hidden_size=8,
        downsampling_ratios=[5, 4, 16],
        quantization_dim=256 + 128,
        semantic_model_config=semantic,
        activation_dropout=0.0,
    )
    config.weights_version = WEIGHTS_VERSION
    return config


def new_model(heard: Tensor, on_cpu: bool = True, decoder_layers: int = DECODER_LAYERS) -> NeuCodecModel:
    """Returns a model with random weights, scaled so that it can learn; `heard` (B, (F + 1) * 320) is real speech."""
    config = nano_config(decoder_layers)
    # Crops are short: plain products are faster than fused attention and its backward pass.
    config._attn_implementation = config.semantic_model_config._attn_implementation = "eager"
    model = NeuCodecModel(config)
    for name, part in model.named_children():
        if name != "semantic_encoder":
            part.apply(_keep_variance)
    with torch.no_grad():
        head = model.acoustic_decoder.head.linear
        head.weight.normal_(std=model.config.initializer_range)
        head.bias[: head.out_features // 2] = _HEAD_LOG_MAGNITUDE
        project = model.quantizer.project_in
        projected = quantiser_input(model, heard).flatten(0, 1)  # (B * F, 8)
        scale = QUANTISER_SPREAD / projected.std(dim=0)
        project.weight *= scale.unsqueeze(1)
        project.bias.copy_(QUANTISER_MEAN + (project.bias - projected.mean(dim=0)) * scale)
    if on_cpu:
        replace_activations(model.acoustic_encoder)
    return model


def mean_weights(runs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the mean of the weights of runs that began at one checkpoint."""
    return {name: torch.stack([run[name] for run in runs]).mean(dim=0) for name in runs[0]}


@torch.no_grad()
def take_weights(model: NeuCodecModel, weights: Mapping[str, Tensor]) -> None:
    """Loads the weights of a model whose decoder may have fewer layers, and whose layers may have fewer channels.

    The output stays the same: extra layers start as the identity, and extra channels are not listened to yet.
    """
    taken = model.state_dict() | weights
    for name, parameter in model.named_parameters():
        if name in weights:
            taken[name] = _widened(weights[name], parameter)
        elif name.endswith(("o_proj.weight", "fc2.weight")):
            taken[name] = torch.zeros_like(parameter)
    model.load_state_dict(taken)


def _widened(weight: Tensor, like: Tensor) -> Tensor:
    """Returns `weight` in the shape of `like`: extra rows are those of `like`, extra columns of old rows are zero."""
    if all(size <= wanted for size, wanted in zip(weight.shape, like.shape, strict=True)):
        wide = like.clone()
        wide[: len(weight)] = 0.0
        wide[tuple(map(slice, weight.shape))] = weight
        return wide
    return weight  # larger than the layer: loading it fails


def freeze_encoder(model: NeuCodecModel) -> None:
    """Tokens do not change: only the path from tokens to audio is trained."""
    model.requires_grad_(False)
    model.quantizer.project_out.requires_grad_(True)
    model.acoustic_decoder.requires_grad_(True)


def _keep_variance(module: nn.Module) -> None:
    """With the library's fixed spread, narrow layers shrink their input a hundredfold up to the quantiser, and the
    first steps are far too large.
    """
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)


@dataclass(frozen=True)
class LiveCrop:
    """`flipped` has for each row (B,) the probability of a flipped bit."""

    windows: Windows
    priors: StreamPriors
    flipped: Tensor


def mel_input(heard: Tensor) -> Tensor:
    """Returns the semantic branch's input, normalised over the crop as upstream: (B, (F + 1) * 320) -> (B, F, 160)."""
    mel = log_mel(heard)  # (B, 2F + 1 or 2F, 80)
    variance, mean = torch.var_mean(mel, dim=1, keepdim=True)
    mel = (mel - mean) / torch.sqrt(variance + _VARIANCE_FLOOR)
    frames = heard.shape[1] // 320 - 1
    return mel[:, : 2 * frames].reshape(mel.shape[0], frames, 2 * mel.shape[2])


def quantiser_input(model: NeuCodecModel, heard: Tensor) -> Tensor:
    """Returns the quantiser's input before rounding, with gradients: (B, (F + 1) * 320) at 16 kHz -> (B, F, 8)."""
    return model.quantizer.project_in(_joined(model, heard, False, None))


def reconstruct(
    model: NeuCodecModel, heard: Tensor, mixed: bool = False, live: LiveCrop | None = None
) -> Reconstruction:
    """(B, (F + 1) * 320) at 16 kHz -> (B, F * 480) at 24 kHz, with gradients for every part.

    `mixed` computes the semantic branch and the decoder in bfloat16; the rest, around the quantiser, is always float32.
    """
    projected = model.quantizer.project_in(_joined(model, heard, mixed, live))
    return Reconstruction(audio_of(model, projected, mixed, live), projected)


def audio_of(model: NeuCodecModel, projected: Tensor, mixed: bool = False, live: LiveCrop | None = None) -> Tensor:
    """The output for the quantiser's input, with gradients: (B, F, 8) -> (B, F * 480) at 24 kHz."""
    codes, _ = model.quantizer.quantizer(model.quantizer.quantizer.bound(projected))  # upstream bounds twice
    if live is not None:
        codes = damaged(codes, live.flipped)
    latents = model.quantizer.project_out(codes)
    with torch.autocast(projected.device.type, torch.bfloat16, enabled=mixed):
        if live is None:
            audio = model.acoustic_decoder(latents, attention_mask=None).squeeze(1)
        else:
            audio = decode(model.acoustic_decoder, latents, live.windows, live.priors)
    return audio.float()


def damaged(codes: Tensor, flipped: Tensor) -> Tensor:
    """Flips each bit of codes (B, F, 8) of four levels, -1 to 0.5, with probability `flipped` (B,)."""
    bits = (torch.rand(2, *codes.shape, device=codes.device) < flipped[:, None, None]).int()
    levels = (codes.detach() * 2.0 + 2.0).round().int()
    wrong = ((levels ^ (bits[0] + 2 * bits[1])) - 2) / 2.0
    return torch.where(bits.any(0), wrong, codes)


def _joined(model: NeuCodecModel, heard: Tensor, mixed: bool, live: LiveCrop | None) -> Tensor:
    with torch.autocast(heard.device.type, torch.bfloat16, enabled=mixed):
        if live is None:
            said = model.semantic_encoder(mel_input(heard)).last_hidden_state  # (B, F, Ds)
            said = model.semantic_adapter(said.transpose(1, 2))  # (B, Ds, F)
        else:
            said = semantic(model, heard, live.windows, live.priors)
    acoustic = model.acoustic_encoder(heard.unsqueeze(1))[..., : said.shape[2]]  # (B, D, F)
    joined = torch.cat([said.float(), acoustic], dim=1).transpose(1, 2)  # (B, F, Ds + D)
    return model.fc_encoder(joined)
