"""Encoders: what an agent remembers with. One sequence mixer per file, all under the contract in base.py."""

from rlmin.encoders.aaren import Aaren as Aaren
from rlmin.encoders.attention import Attention as Attention
from rlmin.encoders.base import Encoder as Encoder
from rlmin.encoders.conv import CausalConv as CausalConv
from rlmin.encoders.gru import GRU as GRU
from rlmin.encoders.lstm import LSTM as LSTM
from rlmin.encoders.min_gru import MinGRU as MinGRU
from rlmin.encoders.min_lstm import MinLSTM as MinLSTM
from rlmin.encoders.mlp import MLP as MLP
from rlmin.encoders.stack import MIXERS as MIXERS
from rlmin.encoders.stack import Stack as Stack
