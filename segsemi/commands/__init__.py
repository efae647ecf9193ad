"""The commands that users type: `python -m segsemi ...`."""
