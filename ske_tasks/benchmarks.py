"""Counts of the six benchmarks, and what was repaired or left unscored.

python -m ske_tasks.benchmarks
"""

from ske_tasks.six.load import main

if __name__ == "__main__":
    main()
