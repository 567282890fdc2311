"""Runs: the content of a run folder (checkpoints, logs, progress), and curves, groups and plots of many runs."""
