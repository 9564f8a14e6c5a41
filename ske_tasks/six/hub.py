"""Loads a split from the Hugging Face hub, with errors that say which, from where and what to do.

python -c "from ske_tasks.six.hub import fetch; print(fetch('allenai/ai2_arc', 'ARC-Easy', 'test', ['id']))"
"""

from dataclasses import dataclass, field

from datasets import Dataset, load_dataset

from ske_models.errors import UserError
from ske_tasks.six.rows import Row


@dataclass
class Read:
    """What a reader found: rows of the test split and few-shot examples."""

    test: list[Row]
    shots: list[Row] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def fetch(repo: str, config: str | None, split: str, columns: list[str]) -> Dataset:
    """Load one split from the hub and check its columns.

    Raises:
        UserError: the repository, configuration, split or a column is missing; says which and what to do.
    """
    name = repo + (f" ({config})" if config else "")
    try:
        data = load_dataset(repo, config, split=split)
    except (OSError, ValueError, RuntimeError) as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise UserError(
            f"cannot load {name}, split {split}, from the Hugging Face hub: {reason}; check the network and "
            "HF_ENDPOINT, or fill the cache where there is a network (hf download --repo-type dataset "
            f"{repo}) and set HF_HUB_OFFLINE=1"
        ) from cause
    missing = [column for column in columns if column not in data.column_names]
    if missing:
        raise UserError(
            f"{name}, split {split}: no column {', '.join(missing)} (found {', '.join(data.column_names)}); "
            "the repository has changed: pin an older revision in the cache, or correct its reader "
            "(ske_tasks/six/sources.py)"
        )
    return data
