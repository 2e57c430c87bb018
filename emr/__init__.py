"""Runs etl.py on Amazon EMR: `python -m emr run ...`."""
