"""Self-learning rounds: M0 to M1 (meta), M2, M3, M4, each a normal Hugging Face checkpoint.

    python training/round.py                                     # the default recipe, in runs/NAME
    python training/round.py --recipe my.yaml --run runs/mine --rounds 1-2 --until judge
    python training/round.py --recipe paper --dry-run            # counts, tokens, cost; loads no model
    python training/round.py --status

Given again after any stop, it continues. The stages are listed in `training/stage.py`, a file each; what they
write lies in the run's folder (`training/run_folder.py`), to be looked at, edited and continued from.
"""

from training.stopping import one_line_when_stopped


def main() -> None:
    """The command."""
    with one_line_when_stopped():
        from training import rounds  # which takes a second, in which it may be stopped, too

        rounds.main()


if __name__ == "__main__":
    main()
