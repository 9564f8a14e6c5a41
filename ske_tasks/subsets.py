"""The table by subset of a run: the earlier name of `ske_tasks.six.subsets`, which stays valid.

python -m ske_tasks.subsets out              # a samples_*.jsonl, or a folder with them
"""

from ske_tasks.six.subsets import main

if __name__ == "__main__":
    main()
