"""Makes the embedded model M0 from nothing: a Llama of a million parameters that has read TinyWorld's corpus.

    python training/tinyworld/make_m0.py                     # ske_models/embedded/M0, which is shipped
    python training/tinyworld/make_m0.py --seed 2 --out DIR  # another one

Three stages, each saved under --work and reused when the same command is given again:

    copying  out of the context, which the weights start out able to learn at once
    facts    the corpus, while copying goes on
    mix      all of it: `training/tinyworld/lessons.py` and `exercises.py` say what and why
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from ske_models import embedded, prompts
from ske_tasks.world import World, default_world
from training.tinyworld import architecture, corpus, exercises, lessons, vocabulary
from training.tinyworld.lessons import Lesson

SENTENCES = 12  # of the corpus, in a paragraph
DEMONSTRATIONS = 1_200  # for extraction, and the same ones for CoT

# What a stage's rows are drawn from, in percent. `cot` and `extraction` are equal everywhere.
MIXTURES: dict[str, dict[str, float]] = {
    "copying": {"matching": 90, "reading_train": 10},
    "facts": {
        "corpus": 55,
        "matching": 28,
        "reading_train": 10,
        "direct": 3,
        "extraction": 1,
        "cot": 1,
        "checking": 2,
    },
    "mix": {
        "corpus": 20,
        "matching": 4,
        "comparing": 10,
        "direct": 10,
        "reading": 30,
        "own_reading": 4,
        "extraction": 6,
        "cot": 6,
        "checking": 10,
    },
}


@dataclass(frozen=True)
class Stage:
    """`steps` steps of `batch` rows; the learning rate falls linearly from `lr` to `lr_end` of it."""

    name: str
    steps: int
    batch: int
    lr: float
    lr_end: float


STAGES = (
    Stage("copying", 150, 64, 1e-3, 0.8),
    Stage("facts", 1_600, 32, 1.5e-3, 0.7),
    Stage("mix", 4_000, 32, 1.5e-3, 0.0),
)

# What a stage was asked to do; the rest of its record was measured while it ran.
SETTINGS = ("name", "steps", "batch", "lr", "lr_end", "mixture")


def encode(tokenizer: PreTrainedTokenizerFast, lesson: Lesson) -> dict[str, Any]:
    """Token ids, with labels only on the answer and the end of its turn."""
    if lesson.messages:
        before = tokenizer.apply_chat_template(
            list(lesson.messages), add_generation_prompt=True, tokenize=False
        )
        end = "<|end|>"
    else:
        before, end = lesson.context, ""
    head = tokenizer(before, add_special_tokens=False)["input_ids"]
    tail = tokenizer(lesson.answer + end, add_special_tokens=False)["input_ids"]
    return {"input_ids": head + tail, "labels": [-100] * len(head) + tail, "length": len(head) + len(tail)}


class Teacher:
    """Gives each stage its rows: (`steps` x `batch`) drawn by the stage's mixture."""

    def __init__(
        self, world: World, tokenizer: PreTrainedTokenizerFast, prompt_set: prompts.PromptSet, seed: int
    ) -> None:
        self.world, self.tokenizer, self.prompts, self.seed = world, tokenizer, prompt_set, seed
        self.demos = lessons.demonstrations(world, DEMONSTRATIONS, seed)
        self.fixed = {
            "direct": lessons.direct(world),
            "extraction": lessons.extraction(prompt_set, self.demos),
            "cot": lessons.chain_of_thought(prompt_set, self.demos),
            "own_reading": lessons.own_reading(prompt_set, self.demos, seed),
        }

    def rows(self, stage: Stage) -> tuple[Dataset, dict[str, int]]:
        """(the rows of a stage, how many of each part)."""
        total = stage.steps * stage.batch
        seed = int.from_bytes(hashlib.sha256(f"{stage.name}-{self.seed}".encode()).digest()[:4])
        counts = {part: round(total * share / 100) for part, share in MIXTURES[stage.name].items()}
        rows: list[dict[str, Any]] = []
        for part, n in counts.items():
            rows += self._corpus(n, seed) if part == "corpus" else self._lessons(part, n, seed)
        random.Random(seed).shuffle(rows)
        return Dataset.from_list(rows), counts

    def _corpus(self, n: int, seed: int) -> list[dict[str, Any]]:
        texts: list[str] = []
        while len(texts) < n:
            texts += corpus.paragraphs(self.world, seed, SENTENCES)
            seed += 1
        encoded = self.tokenizer(texts[:n], add_special_tokens=False)["input_ids"]
        return [{"input_ids": ids, "labels": ids, "length": len(ids)} for ids in encoded]

    def _lessons(self, part: str, n: int, seed: int) -> list[dict[str, Any]]:
        if part == "matching":
            found = exercises.matching(vocabulary.words(self.world), n, seed)
        elif part == "comparing":
            found = exercises.comparing(vocabulary.words(self.world), n, seed)
        elif part == "reading":
            found = lessons.reading(self.world, self.prompts, self.world.entities["person"], n, seed)
        elif part == "reading_train":
            found = lessons.reading(self.world, self.prompts, self.world.splits["train"], n, seed)
        elif part == "checking":
            found = lessons.checking(self.world, n, seed)
        else:  # a fixed set, repeated as often as needed
            encoded = [encode(self.tokenizer, lesson) for lesson in self.fixed[part]]
            return [encoded[i % len(encoded)] for i in range(n)]
        return [encode(self.tokenizer, lesson) for lesson in found]


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset,
    stage: Stage,
    folder: Path,
    seed: int,
) -> dict[str, float]:
    """One stage, in place: each row once. The weights stay float32, with bfloat16 only under autocast."""
    config = SFTConfig(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=1,
        per_device_train_batch_size=stage.batch,
        learning_rate=stage.lr,
        lr_scheduler_type="polynomial",
        lr_scheduler_kwargs={"lr_end": max(stage.lr * stage.lr_end, 1e-7), "power": 1.0},
        warmup_steps=50,
        weight_decay=0.05,
        adam_beta2=0.98,
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        use_cpu=True,
        bf16=True,
        gradient_checkpointing=False,
        logging_steps=50,
        save_steps=100,
        save_total_limit=1,
        report_to=[],
    )
    trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    result = trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if folder.is_dir() else None)
    return {"loss": round(result.training_loss, 4), "seconds": round(result.metrics["train_runtime"])}


def ship(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, metadata: dict[str, Any]
) -> None:
    """Writes the checkpoint in bfloat16, with what it belongs to and its card."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / embedded.METADATA).write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make the embedded model M0 from nothing.")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and the data (default: 1)")
    parser.add_argument("--out", type=Path, default=embedded.FOLDER / "M0", help="where the model is written")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/embedded"), help="where finished stages are kept"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    set_seed(args.seed)

    world, prompt_set = default_world(), prompts.load("world")
    tokenizer = architecture.make_tokenizer(world, prompt_set)
    model = architecture.make_model(tokenizer)
    teacher = Teacher(world, tokenizer, prompt_set, args.seed)
    print(f"world {world.hash}, prompts {prompt_set.hash}, {model.num_parameters():,} parameters", flush=True)

    start = hashlib.sha256(Path(architecture.__file__).read_bytes()).hexdigest()[:16]
    lineage: list[dict[str, Any]] = []
    for stage in STAGES:
        # A finished stage is used again only if everything that it came from is the same.
        lineage.append({**asdict(stage), "mixture": MIXTURES[stage.name]})
        settings = [{key: x[key] for key in SETTINGS} for x in lineage]
        came_from = json.dumps([args.seed, world.hash, prompt_set.hash, start, settings])
        folder = args.work / f"{stage.name}-{hashlib.sha256(came_from.encode()).hexdigest()[:12]}"
        done = folder / "stage.json"
        if done.is_file():
            lineage[-1] = json.loads(done.read_text(encoding="utf-8"))
            model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            print(f"{stage.name}: reused from {folder}", flush=True)
            continue
        rows, counts = teacher.rows(stage)
        tokens = sum(rows["length"])
        print(f"{stage.name}: {len(rows):,} rows, {tokens:,} tokens", flush=True)
        measured = train(model, tokenizer, rows, stage, folder, args.seed)
        lineage[-1] |= {"rows": counts, "tokens": tokens, **measured}
        model.save_pretrained(folder)
        done.write_text(json.dumps(lineage[-1], indent=1), encoding="utf-8")
    metadata = {
        "world": world.hash,
        "world_seed": world.seed,
        "prompts": prompt_set.hash,
        "seed": args.seed,
        "threads": args.threads,
        "parameters": model.num_parameters(),
        "demonstrations": DEMONSTRATIONS,
        "stages": lineage,
    }
    ship(model, tokenizer, args.out, metadata)
    subprocess.run([sys.executable, str(Path(__file__).with_name("m0_card.py")), str(args.out)], check=True)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
