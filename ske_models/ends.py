"""Where the answer in a reply ends, and what does not state one: the same for both harnesses.

    from ske_models.ends import END_OF_TURN
    END_OF_TURN.split("The answer is B.<|im_end|>", maxsplit=1)[0]

`ske_tasks/answers` reads answers for lm-eval, after it has unified punctuation and markup;
`ske_models/opencompass/stated.py` cuts them out for OpenCompass' rules, of the text as it was written.
"""

from __future__ import annotations

import re

END_OF_TURN = re.compile(
    r"""<\|(?:eot_id|end|im_end|endoftext|end_of_text|eom_id|return|END_OF_TURN_TOKEN)\|>   # Llama 3, Qwen
      | <\|(?:im_start|user|start_header_id|begin_of_text)\|>                # the next turn begins
      | </s> | \[/?INST\]                                                    # Llama 2, Mistral
      | <(?:end_of_turn|start_of_turn|eos)>                                  # Gemma
      | [<‹][|｜](?:end▁of▁sentence|User|begin▁of▁sentence)[|｜][>›]         # DeepSeek
    """,
    re.VERBOSE,
)
# A base model that runs on after its answer writes the next question; that part is not its answer. The word
# that opens its line:
NEXT_QUESTION = r"(?:Question|Q|User|Human|Problem|Exercise|Instruction|问题|题目)"
# ... or repeats the answers to what came before: "Now, let's summarize all the answers:"
SUMMARY = re.compile(
    r"""\n[^\n]{0,40}?(?:\b(?:let['’]s|let\ us|let\ me|I\ will|we\ can)\ ?(?:now\ )?
        (?:summari[sz]e|combine|recap|list|compile|review|put\ together|总结)  # let's combine the answers
        |\bhere\ (?:is|are)\ (?:a|the)\ (?:summary|list)                   # Here is a summary of the answers:
        |\b(?:summary|overview|recap)\ of\b                                # Summary of answers:
        |总结|汇总)                                                        # 总结以上答案
        [^\n]{0,60}?(?:\banswers\b|答案)""",
    re.VERBOSE | re.IGNORECASE,
)
# What precedes "answer" where none is stated: "if the answer is A", "is the answer A?"
HYPOTHETICAL = re.compile(
    r"""\b(?:if|suppose|supposing|assume|assuming|whether|unless|imagine|is|was|could|can|might)\s
        (?:that\s)?(?:the\s|my\s|your\s)?(?:correct\s|right\s|final\s|best\s){0,2}$   # if the answer is A
      | (?:如果|假如|假设|若)[^,.，。\n]{0,6}$                                             # 如果答案是A""",
    re.IGNORECASE | re.VERBOSE,
)
