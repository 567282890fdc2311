"""Encoders: the memories of agents. One cell per file, all under the contract in base.py.

Each line here lists a cell: importing its file registers it. Lists and tables keep this order.
"""

# isort: off
from rlmin.encoders.min_gru import MinGRU as MinGRU
from rlmin.encoders.min_lstm import MinLSTM as MinLSTM
from rlmin.encoders.gru import GRU as GRU
from rlmin.encoders.lstm import LSTM as LSTM
from rlmin.encoders.attention import Attention as Attention
from rlmin.encoders.aaren import Aaren as Aaren
from rlmin.encoders.rg_lru import RGLRU as RGLRU
from rlmin.encoders.griffin import make_griffin_layer as make_griffin_layer
from rlmin.encoders.mamba import Mamba as Mamba
from rlmin.encoders.shm import SHM as SHM
from rlmin.encoders.lmu import LMU as LMU
from rlmin.encoders.coupled_lmu import CoupledLMU as CoupledLMU
from rlmin.encoders.slstm import SLSTM as SLSTM
from rlmin.encoders.srwm import SRWM as SRWM
from rlmin.encoders.regular_lrnn import RegularLRNN as RegularLRNN
from rlmin.encoders.lru import LRU as LRU
from rlmin.encoders.gate_loop import GateLoop as GateLoop
from rlmin.encoders.ffm import FFM as FFM
from rlmin.encoders.gated_linear import GatedLinear as GatedLinear
from rlmin.encoders.delta_net import DeltaNet as DeltaNet
from rlmin.encoders.rwkv6 import RWKV6 as RWKV6
from rlmin.encoders.rwkv7 import RWKV7 as RWKV7
from rlmin.encoders.mlp import MLP as MLP
# isort: on

from rlmin.encoders.base import Encoder as Encoder
from rlmin.encoders.cell import CELLS as CELLS
from rlmin.encoders.cell import MIXERS as MIXERS
from rlmin.encoders.cell import Cell as Cell
from rlmin.encoders.cell import Terms as Terms
from rlmin.encoders.cell import register as register
from rlmin.encoders.conv import CausalConv as CausalConv
from rlmin.encoders.stack import Stack as Stack
