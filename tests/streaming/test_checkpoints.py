"""Checkpoints in the original layouts, with the golden model's weights, give the output of the original."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neucodec_streaming import ModelError, load_codec
from neucodec_streaming.checkpoints import convert
from neucodec_streaming.server.cli import main
from tests.streaming.models import GOLDEN, vectors

HEADS = 2
CONV_OF = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
ADAPTER = {"conv1": "initial_conv", "conv2": "residual_blocks.1", "conv3": "residual_blocks.3", "conv4": "final_conv"}
LAYER = {
    "self_attn.o_proj": "att.c_proj",
    "input_layernorm": "att_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def golden_weights() -> dict[str, Tensor]:
    return load_file(GOLDEN / "model.safetensors")


def side_by_side(rows: Tensor) -> Tensor:
    """Reorders each head from halves to pairs, the original's order."""
    return rows.unflatten(0, (HEADS, 2, -1)).transpose(1, 2).flatten(0, 2)


def original_name(name: str) -> str:
    """Takes a weight that is not part of a fused layer."""
    part, _, rest = name.partition(".")
    match part:
        case "fc_encoder":
            return f"fc_prior.{rest}"
        case "quantizer":
            return f"generator.quantizer.{rest}"
        case "semantic_encoder":
            return f"semantic_model.{rest}"
        case "semantic_adapter":
            conv, _, kind = rest.partition(".")
            return f"SemanticEncoder_module.{ADAPTER[conv]}.{kind}"
        case "acoustic_encoder":
            return f"CodecEnc.{encoder_name(rest)}"
    if rest.startswith("fc."):
        return f"fc_post_a.{rest[3:]}"
    if rest.startswith("head.linear."):
        return f"generator.head.out.{rest[12:]}"
    if rest.startswith("norm."):
        return f"generator.backbone.final_layer_norm.{rest[5:]}"
    if rest.startswith("layers."):
        number, inner = rest.split(".", 2)[1:]
        inner, _, kind = inner.rpartition(".")
        return f"generator.backbone.transformers.{number}.{LAYER[inner]}.{kind}"
    return f"generator.backbone.{rest}"


def encoder_name(rest: str) -> str:
    head, _, tail = rest.partition(".")
    if head == "conv1":
        return f"conv_blocks.0.{tail}"
    if head in ("snake1", "conv2"):
        return f"conv_final_block.{0 if head == 'snake1' else 1}.{tail}"
    number, unit, tail = tail.split(".", 2)
    block = f"conv_blocks.{int(number) + 1}.block"
    if unit in ("snake1", "conv1"):
        return f"{block}.{3 if unit == 'snake1' else 4}.{tail}"
    inner, _, kind = tail.partition(".")
    return f"{block}.{int(unit[-1]) - 1}.block.{CONV_OF[inner]}.{kind}"


def original_weights(plain_too: bool = True) -> dict[str, Tensor]:
    """Weights in the original package's format: fused attention, weight norm, buffers and unused entries."""
    ours, original = golden_weights(), {}
    for name, tensor in ours.items():
        if ".self_attn.q_proj." in name and name.startswith("acoustic_decoder"):
            q, k, v = (ours[name.replace("q_proj", f"{part}_proj")] for part in "qkv")
            fused = torch.cat([side_by_side(q), side_by_side(k), v])
            original[f"generator.backbone.transformers.{name.split('.')[2]}.att.c_attn.weight"] = fused
        elif not (name.startswith("acoustic_decoder") and "_proj." in name and "o_proj" not in name):
            original[original_name(name)] = tensor
    for name in list(original):
        in_decoder = name.startswith("generator.backbone.") and original[name].ndim == 3
        in_encoder = name.startswith("CodecEnc.") and original[name].ndim == 3
        if in_decoder or in_encoder:
            weight = original[name] if in_decoder and plain_too else original.pop(name)
            norm = weight.flatten(1).norm(dim=1)[:, None, None]
            original[f"{name}_g"], original[f"{name}_v"] = norm, weight * 3
    original["generator.head.istft.window"] = torch.ones(4)
    original["CodecEnc.conv_final_block.0.upsample.filter"] = torch.ones(1, 1, 12)
    original["SemanticDecoder_module.initial_conv.weight"] = original["fc_post_s.weight"] = torch.ones(2, 2)
    return original


def saved(folder: Path, weights: dict[str, Tensor], config: bool = True) -> Path:
    folder.mkdir()
    torch.save(weights, folder / "pytorch_model.bin")
    if config:
        (folder / "config.json").write_text((GOLDEN / "config.json").read_text())
    return folder


def assert_decodes(folder: Path | str, kinds: tuple[str, ...]) -> None:
    codec = load_codec(folder, kinds=kinds)
    torch.testing.assert_close(
        codec.decode_code(vectors()["random.codes"]), vectors()["random.recon"], atol=1e-4, rtol=1e-4
    )


def without(weights: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize("plain_too", [True, False])
def test_a_converted_checkpoint_equals_the_original_implementation(tmp_path: Path, plain_too: bool) -> None:
    source = saved(tmp_path / "original", original_weights(plain_too))
    assert convert(source, tmp_path / "model") == []
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors"}
    codec = load_codec(tmp_path / "model")
    assert torch.equal(codec.encode_code(vectors()["long.wav"]), vectors()["long.codes"])
    assert_decodes(tmp_path / "model", ("encode", "decode"))
    if plain_too:
        for name, tensor in load_file(tmp_path / "model" / "model.safetensors").items():
            torch.testing.assert_close(tensor, golden_weights()[name], msg=name)


def test_w2v_bert_may_lie_apart_and_only_its_first_16_layers_are_kept(tmp_path: Path) -> None:
    weights = original_weights()
    semantic = tmp_path / "w2v-bert"
    semantic.mkdir()
    layers = {
        name.removeprefix("semantic_model."): tensor for name, tensor in weights.items() if "semantic_model." in name
    }
    layers |= {"encoder.layers.16.ffn1.output_dense.weight": torch.ones(2), "adapter.layers.0.bias": torch.ones(2)}
    save_file(layers, semantic / "model.safetensors")
    config = json.loads((GOLDEN / "config.json").read_text())
    (semantic / "config.json").write_text(json.dumps(config.pop("semantic_model_config") | {"num_hidden_layers": 24}))
    source = saved(tmp_path / "original", without(weights, "semantic_model."), config=False)
    config["semantic_model_config"] = None
    (source / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )
    convert(source, tmp_path / "model", semantic)
    made = json.loads((tmp_path / "model" / "config.json").read_text())
    assert made["semantic_model_config"]["num_hidden_layers"] == 16
    names = load_file(tmp_path / "model" / "model.safetensors")
    assert not [name for name in names if (".layers.16." in name and "semantic" in name) or "adapter.layers" in name]


DECODERS = {
    "a fine-tuned decoder": without(original_weights(), "CodecEnc.", "semantic_model.", "SemanticEncoder_", "fc_prior"),
    "distill-neucodec": without(original_weights(), "CodecEnc.", "semantic_model.")
    | {"codec_encoder.conv.weight": torch.ones(2), "fc_sq_prior.weight": torch.ones(2)},
}


@pytest.mark.parametrize("layout", DECODERS)
def test_a_checkpoint_without_our_encoder_decodes_and_explains_why_it_cannot_encode(
    tmp_path: Path, layout: str
) -> None:
    source = saved(tmp_path / "original", DECODERS[layout])
    (remark,) = convert(source, tmp_path / "model")
    assert remark.startswith("decodes only")
    assert_decodes(tmp_path / "model", ("decode",))
    with pytest.raises(ModelError, match=r"1\.28 s ahead" if "distill" in layout else "acoustic encoder") as refused:
        load_codec(tmp_path / "model")
    assert "kinds=('decode',)" in str(refused.value)


def test_plain_weights_override_a_different_weight_norm_with_a_warning(tmp_path: Path) -> None:
    weights = original_weights()
    weights["generator.backbone.embed.weight_g"] *= 2
    (remark,) = convert(saved(tmp_path / "original", weights), tmp_path / "model")
    assert "differ from their weight norm: 1, such as" in remark and "generator.backbone.embed.weight" in remark
    assert_decodes(tmp_path / "model", ("decode",))


def test_load_codec_converts_into_a_cache_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = saved(tmp_path / "original", DECODERS["a fine-tuned decoder"])
    assert_decodes(source, ("decode",))
    cached = list((tmp_path / "cache").rglob("model.safetensors"))
    written = cached[0].stat().st_mtime_ns
    assert_decodes(source / "pytorch_model.bin", ("decode",))
    assert len(cached) == 1 and cached[0].stat().st_mtime_ns == written


def test_sizes_default_to_those_of_the_weights(tmp_path: Path) -> None:
    source = saved(tmp_path / "original", DECODERS["a fine-tuned decoder"], config=False)
    weights = torch.load(source / "pytorch_model.bin")
    bins = 4 * 882 + 2
    weights["generator.head.out.weight"] = torch.zeros(bins, 64)
    weights["generator.head.out.bias"] = torch.zeros(bins)
    torch.save(weights, source / "pytorch_model.bin")
    convert(source, tmp_path / "model")
    codec = load_codec(tmp_path / "model", kinds=("decode",))
    assert (codec.sample_rate, codec.hop_length) == (44_100, 882)
    assert len(codec.decode(np.arange(7))) == 7 * 882


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle was run')",))


@pytest.mark.parametrize(
    "content",
    [Bomb(), {"a": Bomb()}, [1], {"a": 1}, {"fc.weight": torch.ones(1)}],
    ids=["bomb", "bomb inside", "list", "number", "other name"],
)
def test_a_file_other_than_a_checkpoint_is_refused_and_leaves_no_output(
    tmp_path: Path, content: object, capsys
) -> None:
    (tmp_path / "original").mkdir()
    torch.save(content, tmp_path / "original" / "pytorch_model.bin")
    assert main(["convert", str(tmp_path / "original"), str(tmp_path / "model")]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["original"]


def test_the_command_reports_the_converted_folder(tmp_path: Path, capsys) -> None:
    source = saved(tmp_path / "original", DECODERS["distill-neucodec"])
    assert main(["convert", str(source), str(tmp_path / "model")]) == 0
    assert "decodes only" in capsys.readouterr().out
    assert main(["convert", str(source), str(tmp_path / "model")]) == 3
    assert "already exists" in capsys.readouterr().err
