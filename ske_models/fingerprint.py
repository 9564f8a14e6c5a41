"""What a text comes from: the backend, its arguments, and which weights they are.

    from ske_models.fingerprint import fingerprint
    fingerprint("hf", {"pretrained": "/models/M1", "dtype": "float32"}, served=False)

A store of steps belongs to exactly that (ske_models/store.py), and results say it. What is identity and what
is not is one list, here and in docs/lm-eval.md.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import cache_folder, user_path
from ske_models.secrets import NAMES as SECRETS
from ske_models.secrets import masked

log = logging.getLogger(__name__)

# Arguments that say how fast a text comes, where it is computed, or who may have it, but not what it says.
# Greedy texts follow from model and prompt up to rounding; `seed` is for sampled ones, which are not kept.
NOT_IDENTITY = SECRETS | {
    # how much at a time, and how patiently
    "batch_size", "max_batch_size", "num_concurrent", "max_retries", "max_wait", "timeout", "max_num_seqs",
    "max_num_batched_tokens", "enable_chunked_prefill", "enable_prefix_caching", "scheduling_policy",
    "long_prefill_token_threshold", "async_scheduling", "threads", "num_threads", "num_scheduler_steps",
    # on what
    "device", "device_map", "device_map_option", "parallelize", "tensor_parallel_size",
    "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel", "distributed_executor_backend",
    "tp_plan", "max_memory_per_gpu", "max_cpu_memory", "offload_folder", "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "num_gpu_blocks_override", "block_size", "swap_space", "cpu_offload_gb", "enforce_eager",
    "cudagraph_capture_sizes", "max_seq_len_to_capture", "compilation_config", "disable_custom_all_reduce",
    "low_cpu_mem_usage", "download_dir", "cache_dir", "max_parallel_loading_workers",
    # what is said of it, and to whom
    "disable_log_stats", "disable_log_requests", "verify_certificate", "ca_cert_path",
    "local_files_only", "logits_cache", "seed", "think_end_token",
}  # fmt: skip
# The most tokens of prompt and text. Where the backend says which prompts it cuts, those alone depend on it
# and have keys of their own; elsewhere it is identity.
LENGTHS = {"max_length", "max_model_len"}
# Arguments that name files, here or on the Hub, by the file that each has there.
PLACES = {
    "pretrained": "config.json",
    "peft": "adapter_config.json",
    "lora_local_path": "adapter_config.json",
    "delta": "config.json",
    "tokenizer": "tokenizer_config.json",
}
_NOTICE = 2 * 2**30  # bytes that take long enough to read that a line says so


def fingerprint(
    backend: str, args: Mapping[str, Any], served: bool, cuts_known: bool = False
) -> dict[str, Any]:
    """JSON-able identity of what will write the texts.

    A local file or folder counts by its content, wherever it is; a model on the Hub by its commit.
    served: the model runs behind an API, and is known only by the address and the name in `args`; or, where
    `pretrained` names its folder beside `model`, by that folder's content, wherever it is served.
    cuts_known: the backend says which prompts it cuts (`Engine.cut_to`).
    Raises UserError if an argument of PLACES names nothing that is available.
    """
    left_out = NOT_IDENTITY | (LENGTHS if cuts_known else set())
    folder = args.get("pretrained")
    if served and folder and args.get("model") and user_path(str(folder), "pretrained").exists():
        left_out = left_out | {"base_url"}  # the weights that are served there are named
    kept = {name: value for name, value in args.items() if name not in left_out and value is not None}
    return {"backend": backend} | {name: _identity(name, value, kept, served) for name, value in kept.items()}


def _identity(name: str, value: Any, args: Mapping[str, Any], served: bool) -> Any:
    if isinstance(value, (dict, list, tuple)):
        return json.loads(json.dumps(masked(value), default=str))
    may_be_local = (name in PLACES or os.sep in str(value)) and "://" not in str(value)
    local = may_be_local and user_path(str(value), f"{name}={value}").exists()
    if local or (name in PLACES and not (served and name != "tokenizer")):
        revision = args.get("tokenizer_revision" if name == "tokenizer" else "revision")
        found = weights(str(value), revision, name, args.get("gguf_file"))
        return f"content {found}" if local else found
    return masked(str(value))


def weights(pretrained: str, revision: str | None = None, name: str = "pretrained", only: Any = None) -> str:
    """Local: hash of the contents (of a folder: with its files' names). Hub: the commit of `revision` now.

    Cards (*.md) and hidden files do not count, nor do a folder's other GGUF files where `only` names one.
    name: of the argument, for the message. Raises UserError if there is neither.
    """
    place = user_path(pretrained, f"{name}={pretrained}")
    if place.is_file():
        return _file_hash(place)
    if place.is_dir():
        return digest("\n".join(f"{file}:{_file_hash(place / file)}" for file in _files(place, only)))
    if pretrained.startswith(("/", ".", "~")):
        raise UserError(f"{name}={pretrained}: no such folder; give a checkpoint's folder or ORG/NAME")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        # .../snapshots/COMMIT/config.json
        return Path(
            hf_hub_download(pretrained, PLACES.get(name, "config.json"), revision=revision)
        ).parent.name
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{name}={pretrained}: no such folder, and not available: {reason}") from error


def _files(folder: Path, only: Any) -> list[str]:
    """What of a folder counts, as sorted relative names."""
    found = []
    for path in folder.rglob("*"):
        file = path.relative_to(folder)
        hidden = any(part.startswith((".", "__pycache__")) for part in file.parts)
        other = only is not None and path.suffix == ".gguf" and str(file) != str(only)
        if not hidden and not other and path.suffix != ".md" and path.is_file():
            found.append(str(file))
    return sorted(found)


def _file_hash(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file's bytes. A file that has not changed is read once.

    Remembered in the cache folder by path, size, times and inode: a name of 64 bytes per file.
    """
    stat = path.stat()
    known = digest([str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino])
    memory = cache_folder() / "hashes" / known
    try:
        return memory.read_text(encoding="ascii")
    except OSError:
        pass
    if stat.st_size > _NOTICE:
        log.warning("ske-learn: reading %s once, to know it again (%.0f GB)", path, stat.st_size / 1e9)
    sha = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**22):
                sha.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    found = sha.hexdigest()[:16]
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        part = memory.with_name(f"{memory.name}.{os.getpid()}")
        part.write_text(found, encoding="ascii")
        part.replace(memory)
    except OSError as error:
        log.info("%s cannot be written (%s): files are read again at the next start", memory, error)
    return found


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a text, or of a value as sorted JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
