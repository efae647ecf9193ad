"""What every package uses: params, errors, files, classes, paths, pictures."""
