"""What the embedded models are before any training: tokenizer, Llama, and where its weights start.

    tokenizer = make_tokenizer(default_world(), prompts.load("world"))
    model = make_model(tokenizer)

`training/tinyworld/make_m0.py` trains it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.tinyworld import vocabulary

if TYPE_CHECKING:
    from ske_models.prompts import PromptSet
    from ske_tasks.world import World

HIDDEN, HEADS, HEAD, LAYERS = 128, 4, 64, 4
ROPE_THETA = 10_000.0

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer(world: World, prompts: PromptSet) -> PreTrainedTokenizerFast:
    """One token per word, mark and end of line; decoding puts the spaces back where English has them."""
    words = dict.fromkeys([*vocabulary.SPECIAL, *vocabulary.words(world), *vocabulary.prompt_words(prompts)])
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(vocabulary.WORD), behavior="removed", invert=True)
    no_space = [(f" {mark}", mark) for mark in ".,:?)"] + [("( ", "("), (" \n", "\n"), ("\n ", "\n")]
    core.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse()]
        + [decoders.Replace(old, new) for old, new in no_space]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|end|>",
        extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama; its weights follow from torch's seed."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        head_dim=HEAD,
        attention_bias=True,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    # At this size torch's fused attention takes half of a training step on a CPU, the plain one a tenth.
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    start_with_induction(model)
    return model


@torch.no_grad()
def start_with_induction(model: LlamaForCausalLM) -> None:
    """Sets one head each of two layers to an induction circuit (Olsson et al. 2022), to be trained further.

    Head 0 of layer 0 looks at the token before and writes it beside the current one; head 0 of layer 1 looks
    for the place after an earlier copy of the current token, and copies what stands there. Large models find
    this circuit early in their training. This one, started at random, had not found it after some millions
    of tokens; started like this it copies at once, and can then learn to use knowledge that it is given.
    """
    half = HEAD // 2
    # Of length 1 from the start: embeddings that had to grow would drown what is written beside them.
    model.model.embed_tokens.weight.normal_(std=HIDDEN**-0.5)
    # Radians by which the position turns each pair of dimensions of a head. The fast ones tell positions
    # apart; the slow ones hardly turn, so contents can be matched in them.
    turns = [ROPE_THETA ** (-i / half) for i in range(half)]
    fast = [i for i, turn in enumerate(turns) if turn > 0.25]
    slow = [i for i, turn in enumerate(turns) if turn <= 0.03]
    content = [*slow, *(i + half for i in slow)]
    n = len(content)
    basis = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN))[0]
    seen = basis[:, :n].T  # the part of a token that is matched
    beside = basis[:, -n:].T  # where that of the token before is written
    copied = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN))[0][:, :HEAD].T
    before, finder = model.model.layers[0].self_attn, model.model.layers[1].self_attn

    before.q_proj.weight[:HEAD] *= 0.1
    before.k_proj.weight[:HEAD] *= 0.1
    strength = math.sqrt(220 / len(fast))
    for i in fast:  # a query at position m fits the key at m - 1 best, whatever the tokens are
        before.q_proj.bias[i] = strength
        before.k_proj.bias[i] = strength * math.cos(turns[i])
        before.k_proj.bias[i + half] = strength * math.sin(turns[i])
    before.v_proj.weight[:HEAD] = 0
    before.v_proj.weight[:n] = seen
    before.o_proj.weight[:, :HEAD] = 0
    before.o_proj.weight[:, :n] = beside.T / math.sqrt(n)

    # After the norm both tokens have a length of about 8; a match shall score 12 before the softmax.
    sharpness = math.sqrt(12 * math.sqrt(HEAD) / (8 * 8 * math.sqrt(n / HIDDEN)))
    finder.q_proj.weight[:HEAD] = 0
    finder.k_proj.weight[:HEAD] = 0
    finder.q_proj.weight[content] = sharpness * seen
    finder.k_proj.weight[content] = sharpness * beside
    finder.v_proj.weight[:HEAD] = copied
    finder.o_proj.weight[:, :HEAD] = 0.3 * copied.T
