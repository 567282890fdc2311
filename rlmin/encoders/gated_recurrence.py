"""What GRU and LSTM share: gates that read the memory, with the weights of torch.nn."""

from typing import ClassVar

from torch import nn

from rlmin.encoders.base import Encoder
from rlmin.settings import Size
from rlmin.settings.boundary import checked


class GatedRecurrence(Encoder):
    """One layer whose gates are projection(x[t]) and recurrence(h[t-1]), drawn as torch.nn draws them.

    Attributes:
        projection: nn.Linear(D, parts * H).
        recurrence: nn.Linear(H, parts * H).
    """

    parts: ClassVar[int]  # rows of each layer, in units of H

    @checked
    def __init__(self, input_size: Size, hidden_size: Size) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.projection = nn.Linear(input_size, self.parts * hidden_size)
        self.recurrence = nn.Linear(hidden_size, self.parts * hidden_size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -(hidden_size**-0.5), hidden_size**-0.5)
