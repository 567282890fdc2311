"""The linear system that holds a window of its input as Legendre polynomials: the memory of both LMUs."""

import numpy as np
import torch
from torch import Tensor


def make_legendre(order: int, window: float) -> tuple[Tensor, Tensor]:
    """A and B of m[t] = A m[t-1] + B u[t], whose m are the Legendre coefficients of the last `window` steps of u.

        dm/dt = (A' m + B' u) / window,   A'[i, j] = (2i+1) * (-1 if i < j else (-1)**(i-j+1)),   B'[i] = (2i+1) (-1)**i

    held over steps of 1 (zero-order hold): exp of the matrix [[A', B'], [0, 0]] / window.

    Args:
        order: d, number of coefficients; at least 1.
        window: length in steps, above 0.

    Returns:
        [d, d] and [d], float64. A is never diagonalised: its eigenvectors are useless beyond d = 12.

    Source: Voelker et al. 2019 (NeurIPS, Legendre Memory Units), equations 1 and 2.
    """
    i, j = np.meshgrid(np.arange(order), np.arange(order), indexing="ij")
    whole = np.zeros((order + 1, order + 1))
    whole[:order, :order] = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    whole[:order, order] = (2 * i[:, 0] + 1) * (-1.0) ** i[:, 0]
    held = torch.linalg.matrix_exp(torch.from_numpy(whole / window))
    return held[:order, :order].clone(), held[:order, order].clone()
