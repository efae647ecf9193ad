"""Params, errors, files, classes, paths and pictures, which every package uses."""
