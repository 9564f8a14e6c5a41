"""What a text comes from: the backend, its arguments, and which weights they are.

A store of steps belongs to exactly that (ske_models/knowledge.py), and results say it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ske_models.errors import UserError

# Backend arguments that change how fast a text comes, or who may ask for it, but not the text. Secrets
# are among them, and so never reach a store.
NOT_IDENTITY = {
    "batch_size", "max_batch_size", "device", "parallelize", "num_concurrent", "max_retries", "max_wait",
    "timeout", "verify_certificate", "ca_cert_path", "auth_token", "header", "token", "tensor_parallel_size",
    "data_parallel_size", "gpu_memory_utilization", "enforce_eager",
}  # fmt: skip


def fingerprint(backend: str, args: Mapping[str, Any], served: bool) -> dict[str, Any]:
    """JSON-able identity of what will write the texts.

    served: the model runs behind an API, and is known only by the address and the name in `args`.
    Raises UserError if `args["pretrained"]` is no checkpoint that can be had.
    """
    named = {name: str(value) for name, value in args.items() if name not in NOT_IDENTITY}
    if served or "pretrained" not in args:
        return {"backend": backend, **named}
    return {"backend": backend, **named, "weights": weights(args["pretrained"], args.get("revision"))}


def weights(pretrained: str, revision: str | None = None) -> str:
    """Folder: hash of its files' names, sizes and times, cards aside. Hub: the commit that `revision` is now.

    Raises UserError if there is neither.
    """
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
        listing = [f"{f.relative_to(folder)}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files]
        return digest("\n".join(listing))
    if pretrained.startswith(("/", ".", "~")):
        raise UserError(f"pretrained={pretrained}: no such folder; give a checkpoint's folder or ORG/NAME")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        # .../snapshots/COMMIT/config.json
        return Path(hf_hub_download(pretrained, "config.json", revision=revision)).parent.name
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"pretrained={pretrained}: no such folder, and not to be had: {reason}") from error


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a text, or of a value as sorted JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
