"""Executors: many jobs on this machine, on a Ray cluster or on SLURM, each attempt in a process of its own."""
