"""The numbers, pictures and page of `training/report.py`."""
