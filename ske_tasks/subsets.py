"""The table by subset of a finished run: 57 subjects of MMLU, 21 sets of AGIEval, 27 tasks of BBH.

python -m ske_tasks.subsets out              # a samples_*.jsonl, or a folder with them
"""

from ske_tasks.six.subsets import main

if __name__ == "__main__":
    main()
