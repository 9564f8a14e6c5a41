"""What training needs of memory: the computed figures against real models, optimizers and forward passes, and
the refusal of what cannot fit."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from small_runs import command, refused, small, write
from transformers import AutoModelForCausalLM

from training import memory
from training.launch import accelerate_config
from training.settings.sft import Lora, Sft

LORA = Lora(r=4)


def adapted(model):
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


@pytest.fixture(scope="module")
def shapes(tiny_llama):
    found = memory.of_folder(tiny_llama)
    assert found is not None
    return found


def test_the_shapes_are_those_of_the_model(shapes, tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert shapes.parameters == model.num_parameters()
    assert shapes.bytes == 4 * model.num_parameters()
    assert shapes.blocks == 2
    linear = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert shapes.linear().keys() == linear - {"lm_head.weight"}
    assert len(shapes.linear(["q_proj", "v_proj"])) == 4


@pytest.mark.parametrize("lora", [None, LORA])
def test_weights_gradients_and_adam_take_what_is_computed(shapes, tiny_llama, lora):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    if lora is not None:
        model = adapted(model)
    trained = [value for value in model.parameters() if value.requires_grad]
    adam = torch.optim.AdamW(trained)
    ids = torch.arange(8)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    adam.step()
    held = [*model.parameters(), *(value.grad for value in trained)]
    held += [moment for state in adam.state.values() for moment in state.values() if moment.dim()]
    found = sum(value.nbytes for value in held)
    assert found == memory.fixed(shapes, Sft(bf16=False, lora=lora))


@pytest.mark.parametrize(("lora", "checkpointing"), [(None, False), (None, True), (LORA, False)])
def test_activations_take_about_what_is_computed(shapes, tiny_llama, lora, checkpointing):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="sdpa").train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    inner = adapted(model).get_base_model().model if lora else model.model
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    copies = {shape for value in model.parameters() for shape in (value.shape, value.shape[::-1])}
    kept: dict[int, torch.Tensor] = {}

    def pack(value):
        where = value.untyped_storage().data_ptr()
        if where not in weights and value.shape not in copies:
            kept[where] = value
        return value

    ids = torch.arange(4 * 64).reshape(4, 64)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
    ):
        inner(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    found = sum(value.untyped_storage().nbytes() for value in kept.values())
    computed = memory.activations(shapes, Sft(lora=lora, gradient_checkpointing=checkpointing), ids.numel())
    # what the backward pass of one block adds with checkpointing is no part of what is kept
    computed -= (
        memory.KEPT * ids.numel() * sum(map(sum, shapes.linear().values())) / 2 if checkpointing else 0
    )
    assert found == pytest.approx(computed, rel=0.25)


def llama_8b():
    """The tensors of Llama-3-8B, in bfloat16."""
    sizes = {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096)}
    mlp = {"gate": (14336, 4096), "up": (14336, 4096), "down": (4096, 14336)}
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        f"model.layers.{i}.{'mlp' if name in mlp else 'self_attn'}.{name}_proj.weight": ("BF16", shape)
        for i in range(32)
        for name, shape in (sizes | mlp).items()
    }
    tensors |= {f"{name}.weight": ("BF16", (128_256, 4096)) for name in ("model.embed_tokens", "lm_head")}
    tensors |= {f"model.layers.{i}.{k}_layernorm.weight": ("BF16", (4096,)) for i in range(32) for k in "ab"}
    return memory.Shapes(tensors | {"model.norm.weight": ("BF16", (4096,))})


def test_an_8b_model(monkeypatch):
    shapes = llama_8b()
    assert shapes.parameters == 8_030_261_248
    monkeypatch.setattr(memory, "visible", lambda cpu=False: memory.Memory("GPU", 1, 24e9))
    lora = Sft(lora=Lora(), batch=1, max_length=512)
    assert memory.fixed(shapes, lora) == pytest.approx(16.06e9 + 18 * 41.9e6, rel=1e-3)  # peft: 41,943,040
    memory.check(shapes, lora)
    with pytest.raises(
        SystemExit, match=r"needs 144\.5 GB per process.*24\.0 GB of GPU.*LoRA 16\.8 GB, QLoRA"
    ):
        memory.check(shapes, Sft())
    monkeypatch.setattr(memory, "visible", lambda cpu=False: memory.Memory("GPU", 8, 80e9))
    spread = Sft(accelerate="fsdp2")
    assert memory.need(shapes, spread).fixed == pytest.approx(16 * 8.030e9 / 8, rel=1e-3)
    memory.check(shapes, spread)
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(SystemExit, match="load_in_4bit: needs bitsandbytes; pip install bitsandbytes"):
            memory.check(shapes, Sft(lora=Lora(load_in_4bit=True)))
    monkeypatch.setattr(memory, "visible", lambda cpu=False: memory.Memory("RAM", 1, 64e9))
    with pytest.raises(SystemExit, match="load_in_4bit: needs a CUDA GPU, and there is none here"):
        memory.check(shapes, Sft(lora=Lora(load_in_4bit=True)))


def test_what_is_offloaded_is_not_counted(monkeypatch, tmp_path):
    config = accelerate_config("fsdp2").read_text()
    file = tmp_path / "offload.yaml"
    file.write_text(config.replace("fsdp_offload_params: false", "fsdp_offload_params: true"))
    monkeypatch.setattr(memory, "visible", lambda cpu=False: memory.Memory("GPU", 8, 8e9))
    with pytest.raises(SystemExit, match="does not|needs"):
        memory.check(llama_8b(), Sft(accelerate="fsdp2"))
    memory.check(llama_8b(), Sft(accelerate=str(file)))


def test_what_this_machine_has(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '81559\\n40960\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert memory.visible() == memory.Memory("GPU", 2, 40960 * 2**20)
    assert memory.visible(cpu=True).kind == "RAM"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = memory.visible()
    assert found.kind == "RAM"
    assert 1e9 < found.each < 1e14


def test_a_run_that_cannot_be_trained_is_refused_at_its_start(tiny_llama, tmp_path):
    """M0's file says that it has 4 * 10**12 parameters and has none: its header is what is read."""
    shutil.copytree(tiny_llama, tmp_path / "M0")
    header = {"model.layers.0.mlp.up_proj.weight": {"dtype": "BF16", "shape": [2_000_000, 2_000_000]}}
    text = json.dumps(
        {name: entry | {"data_offsets": [0, 8 * 10**12]} for name, entry in header.items()}
    ).encode()
    (tmp_path / "M0" / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    file = write(tmp_path / "r.yaml", small(model={"checkpoint": str(tmp_path / "M0")}))
    plan = command("--recipe", file, "--run", tmp_path / "run", "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "memory of training 4,000.00 billion parameters, per process:" in plan.stdout
    assert "  full 72,000.0 GB, LoRA " in plan.stdout
    assert "does not fit here: a run is refused" in plan.stdout
    said = refused(command("--recipe", file, "--run", tmp_path / "run"))
    assert "sft: training 4,000.00 billion parameters needs 72,000.0 GB per process" in said
    assert not (tmp_path / "run" / "round1").exists()


def test_only_the_files_that_are_loaded_count(tmp_path):
    """Mistral's repositories have all weights in consolidated.safetensors, too."""
    for name, tensor in [("model-1", "a"), ("model-2", "b"), ("consolidated", "c")]:
        save_file({tensor: torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    found = memory.of_folder(tmp_path)
    assert found is not None
    assert found.tensors.keys() == {"a", "b"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "x": "model-1.safetensors"}}))
    found = memory.of_folder(tmp_path)
    assert found is not None
    assert found.tensors.keys() == {"a"}
    index.write_text("[]")
    assert memory.of_folder(tmp_path) is None


def test_a_broken_header_is_no_shape(tmp_path):
    assert memory.of_folder(tmp_path) is None
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    found = memory.of_folder(tmp_path)
    assert found is not None
    assert (found.parameters, found.bytes, found.blocks) == (2, 8, 1)
    for bad in (b"", b"\xff" * 40, (2).to_bytes(8, "little") + b"[]", (9**9).to_bytes(8, "little")):
        (tmp_path / "model.safetensors").write_bytes(bad)
        assert memory.of_folder(tmp_path) is None
