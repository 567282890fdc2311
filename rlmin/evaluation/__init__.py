"""Evaluation: whole episodes of a policy: played, scored, asked for returns, collected into a dataset."""
