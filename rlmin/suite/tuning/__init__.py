"""Tuning: a search for settings that are good for every seed, by Optuna, on any executor."""
