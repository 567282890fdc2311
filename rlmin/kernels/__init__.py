"""Kernels: fused CPU code that is not the recurrence: norms, feed-forward blocks, GRU, LSTM, and a whole step in one
call.
"""
