"""What `opencompass eval_configs/ske.py -r` continues: a run that is there, and that was asked for the same.

    check(Path("outputs/ske"), "latest", run.asked)

OpenCompass takes whatever results it finds in the run's folder, whatever this command asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config  # type: ignore[import-untyped]

from ske_models.errors import UserError


def check(work_dir: Path, reuse: str, asked: Mapping[str, str]) -> None:
    """reuse: the argument of `-r`, or "latest"; asked: what eval_configs/ske.py has written into its configs.

    Raises UserError if there is no such run, or if it was asked for something else. Only what both have is
    compared: more models may be added to a run.
    """
    runs = sorted(path.name for path in work_dir.iterdir()) if work_dir.is_dir() else []
    if reuse == "latest" and not runs:
        return  # OpenCompass says so, and begins one
    folder = work_dir / (runs[-1] if reuse == "latest" else reuse)
    if not folder.is_dir():
        newest = f"; the newest there is {runs[-1]}" if runs else ""
        raise UserError(f"-r {reuse}: no folder {folder}{newest}; without -r a new run begins")
    for path in sorted((folder / "configs").glob("*.py")):
        if not path.stat().st_size:
            continue  # the command was ended while it wrote this: it has run nothing
        before = Config.fromfile(path, format_python_code=False).get("asked")
        if before is None:
            raise UserError(f"-r: {path} does not say what it was run with; leave -r out: a new run begins")
        others = [
            f"{name}={before[name]} (now {asked[name]})"
            for name in asked
            if name in before and before[name] != asked[name]
        ]
        if others:
            what = "set the variables as they were, or leave -r out"
            raise UserError(f"-r: {folder} was run with {', '.join(others)}; {what}")
