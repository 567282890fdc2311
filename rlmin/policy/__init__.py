"""The policy: inputs, encoder and heads, and how it acts: `predict` for one step, `Actor` for a loop."""

from rlmin.policy.config import PolicyConfig as PolicyConfig
from rlmin.policy.policy import EncoderName as EncoderName
from rlmin.policy.policy import Policy as Policy
from rlmin.policy.policy import PolicyOutput as PolicyOutput
from rlmin.policy.policy import Trunk as Trunk
