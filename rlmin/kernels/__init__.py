"""Kernels: fused code beside the recurrence: norms, feed-forward blocks, GRU, LSTM, and a step in one call."""
