"""`stop_loops`: a text ends where it has said the same thing three times in a row, for all engines alike.

    lm_eval --model ske_explicit --model_args stop_loops=True,...

The rule is that of vLLM's repetition detection (vllm 0.32, `v1/core/sched/utils.py`,
`check_sequence_repetition`), which vLLM itself applies; transformers are given it here.
"""

from __future__ import annotations

from collections.abc import Sequence

# A run of tokens, and how often it comes. Shorter runs are found, too, as several of them make one of these:
# so a token alone must come 48 times, and a line of 8 tokens 6 times.
SHORTEST, LONGEST, TIMES = 16, 128, 3
# The same in vLLM's words (`RepetitionDetectionParams`).
DETECTION = {"min_pattern_size": SHORTEST, "max_pattern_size": LONGEST, "min_count": TIMES}
_TAIL, _PERIOD = 600, 100  # characters


def loops(tokens: Sequence[int]) -> bool:
    """Whether a text ends in one run of SHORTEST to LONGEST tokens, TIMES in a row."""
    for size in range(SHORTEST, min(LONGEST, len(tokens) // TIMES) + 1):
        if tokens[-1] == tokens[-1 - size] and tokens[-size * TIMES : -size] == tokens[-size * (TIMES - 1) :]:
            return True
    return False


def first_loop(tokens: Sequence[int], seen: int) -> int | None:
    """How many tokens a text had when it looped first, if more than `seen`; None: it does not loop."""
    return next((n for n in range(seen + 1, len(tokens) + 1) if loops(tokens[:n])), None)


def surely_loops(text: str) -> bool:
    """Whether the rule must have ended a text, whatever its tokens are: six times the same and more.

    Tells a server that has no such rule, since nothing else would.
    """
    tail = text[-_TAIL:]
    return len(tail) == _TAIL and any(tail[size:] == tail[:-size] for size in range(1, _PERIOD + 1))
