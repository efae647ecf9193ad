"""Where a stage runs: device, processes, work folder, a clean stop."""
