"""Creates a tiny random speech language model: a two-layer Llama whose vocabulary has the 65,536 speech tokens.

    python -m demos.tiny_speech_lm FOLDER
    transformers serve FOLDER --port 8000 --device cpu

Its speech is unintelligible, but it exercises the same path to a speaker as a real model. Its tokenizer has bytes,
`<|speech_0|>` to `<|speech_65535|>` as added tokens that are not special, and NeuTTS's marks; with random weights,
nearly all of its output is speech.
"""

import argparse
from pathlib import Path

from demos.command_line import needs
from neucodec_streaming.config import CODEBOOK_SIZE

with needs("server"):
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MARKS = (
    "<|SPEECH_GENERATION_END|>",
    "<|SPEECH_GENERATION_START|>",
    "<|TEXT_PROMPT_START|>",
    "<|TEXT_PROMPT_END|>",
)
"""The first one ends an answer."""
CONTEXT_TOKENS = 4096


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Has one token per byte, per mark and per speech token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    tokenizer.add_tokens([AddedToken(f"<|speech_{code}|>", normalized=False) for code in range(CODEBOOK_SIZE)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=MARKS[0],
        pad_token=MARKS[0],
        model_max_length=CONTEXT_TOKENS,
        chat_template="{% for message in messages %}{{ message.content }}{% endfor %}" + MARKS[1],
    )


def tiny_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    """Has 4.2 million random weights; samples, since its most likely token never changes."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.update(do_sample=True, top_k=0, temperature=1.0)
    return model


def save(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tiny_speech_lm", description="Creates a tiny random speech language model.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the model's folder")
    save(parser.parse_args().folder)


if __name__ == "__main__":
    main()
