"""The numbers, pictures and page of `training/reporting/report.py`."""
