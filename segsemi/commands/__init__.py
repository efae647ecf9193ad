"""What users type: `python -m segsemi ...`."""
