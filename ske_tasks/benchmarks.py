"""Counts of the six benchmarks: the earlier name of `ske_tasks.six.load`, which stays valid.

python -m ske_tasks.benchmarks
"""

from ske_tasks.six.load import main

if __name__ == "__main__":
    main()
