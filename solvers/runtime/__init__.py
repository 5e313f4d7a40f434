"""Run-time plumbing that knows nothing of pruning: threads, compiled code, files, late imports."""
