"""A small random Llama for measuring speed, and real questions to ask it.

    HF_ENDPOINT=... python benchmarks/toy.py FOLDER       # makes it once; after that it is only named

4 million parameters, fp32, heads of 32 (which vLLM for CPU can do), 4,096 positions, and a byte-level BPE
tokenizer of 4,096 tokens trained on the benchmarks' own questions. What it writes means nothing, but has the
form of text: whole words, which are tokenized again to the same tokens, and lengths that differ, so that an
engine has stragglers to wait for as with any model.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ske_models.prompts import load as load_prompts
from ske_tasks.six.load import load
from ske_tasks.six.rows import Row

BENCHMARKS = ("mmlu", "agieval", "arc_e", "arc_c", "bbh", "nq")
VOCABULARY = 4096
POSITIONS = 4096
SPECIAL = ["<pad>", "<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if not (loop.last and message['role'] == 'assistant') or add_generation_prompt %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
END_SCALE = 1.6  # of the end token's row in the output layer: sets how long the texts are


def rows(n: int, benchmarks: tuple[str, ...] = BENCHMARKS) -> list[Row]:
    """The first questions of the test split of each benchmark, as many of each, `n` in all, taken in turn."""
    shares = [n // len(benchmarks) + (i < n % len(benchmarks)) for i in range(len(benchmarks))]
    found = [
        load(name)["test"].select(range(share)).to_list()
        for name, share in zip(benchmarks, shares, strict=True)
    ]
    return [of[i] for i in range(max(shares)) for of in found if i < len(of)]


def toy(folder: Path) -> Path:
    """The checkpoint in `folder`, made if it is not there: the same weights and tokenizer every time."""
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = _tokenizer()
        tokenizer.save_pretrained(folder)
        _model(tokenizer).save_pretrained(folder)  # writes config.json, which says that all is there
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [row["ske_question"] + row["ske_ending"] for row in rows(6_000)]
    bpe.train_from_iterator([*texts, *load_prompts("default").templates.values()], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|end|>",
        model_max_length=POSITIONS,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,  # tied and random would only repeat the last token
        initializer_range=0.1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    # only whole words (a space and letters) are ever written, and the end
    words = [i for token, i in tokenizer.get_vocab().items() if re.fullmatch("Ġ[A-Za-z]{2,}", token)]
    silent = torch.ones(len(tokenizer), dtype=torch.bool)
    silent[words] = False
    silent[tokenizer.eos_token_id] = False
    with torch.no_grad():
        model.lm_head.weight[silent] = 0  # a logit of 0, which is never the largest of thousands
        model.lm_head.weight[tokenizer.eos_token_id] *= END_SCALE
    return model


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make the small random Llama that the benchmarks use.")
    parser.add_argument("folder", type=Path)
    sys.stdout.write(f"{toy(parser.parse_args().folder)}\n")


if __name__ == "__main__":
    main()
