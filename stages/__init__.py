"""One thin script a stage of dvc.yaml: read params, call segsemi, write outputs. Run them with `python -m stages.NAME`."""
