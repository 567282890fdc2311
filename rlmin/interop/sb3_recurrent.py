"""minGRU and minLSTM as policies of sb3-contrib's RecurrentPPO.

    import rlmin.interop.sb3_recurrent                   # adds the two names to RecurrentPPO's own
    model = RecurrentPPO("MinGruPolicy", env)            # or policy=MinGruPolicy

Arguments, buffer and zip files are RecurrentPPO's. Only the memory differs: instead of an nn.LSTM, these policies have
a `Stack` of rlmin. A minibatch, sequences padded to one length, is one pass with resets inside. RecurrentPPO's LSTM
runs it in a Python loop as soon as one sequence opens an episode, which is nearly always the case.
"""

import inspect
from typing import Any, ClassVar, TypeAlias

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlmin.checks import check_names, require
from rlmin.encoders import CELLS, Stack
from rlmin.interop.sb3_extractor import SMALLEST_PICTURE
from rlmin.types import State, map_state, tensors_of

require("sb3_contrib", extra="sb3")
from sb3_contrib import RecurrentPPO  # noqa: E402
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy  # noqa: E402
from stable_baselines3.common.preprocessing import is_image_space  # noqa: E402
from stable_baselines3.common.torch_layers import (  # noqa: E402
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import Schedule  # noqa: E402

TAKEN = {"input_size", "hidden_size", "mixer", "layers", "options"}
"""Arguments of `Stack` that the policy sets itself."""

LstmState: TypeAlias = tuple[Tensor, Tensor]
"""RecurrentPPO's state of a memory: (h, c), each [1, B, hidden_size]."""


class Memory(nn.Module):
    """A `Stack` that RecurrentPPO's buffer and policy can hold as if it were an nn.LSTM.

    The whole state of a row is one vector; its first half travels as h, its second as c, each [1, B, hidden_size]. With
    a convolution of width w a block has w * H numbers of state, 2 w H / w = 2 H of them in each half.

    Args:
        input_size: D, features of x.
        output_size: H, features of y.
        mixer, layers, options: of the `Stack`.

    Attributes:
        num_layers: 1, for any number of blocks: the first axis of h and c.
        hidden_size: half the numbers of the state, rounded up: the last axis of h and c.
    """

    def __init__(self, input_size: int, output_size: int, *, mixer: str, layers: int, **options: Any) -> None:
        super().__init__()
        self.input_size, self.num_layers = input_size, 1
        self.stack = Stack(input_size, output_size, mixer=mixer, layers=layers, **options)
        self._form = self.stack.initial_state(1)
        self._sizes = [x.numel() for x in tensors_of(self._form)]
        self.hidden_size = -(-sum(self._sizes) // 2)

    def forward(self, x: Tensor, state: LstmState, start: Tensor) -> tuple[Tensor, LstmState]:
        """Run T steps; x [T, B, D], state (h, c), start [T, B] bool -> y [T, B, H] and the state after them.

        Gradients flow to x, the weights and the state, and stop at every start.
        """
        before = self.unpack(state)
        if len(x) == 1 and not torch.is_grad_enabled():
            y, after = self.stack.step(x[0], before, start[0])
            return y.unsqueeze(0), self.pack(after)
        y, after = self.stack(x, before, start)
        return y, self.pack(after)

    def unpack(self, state: LstmState) -> State:
        """The stack's state of h and c [1, B, hidden_size]."""
        flat = torch.cat(state, -1)[0, :, : sum(self._sizes)]
        parts = iter(torch.split(flat, self._sizes, 1))
        return map_state(lambda x: next(parts).reshape(-1, *x.shape[1:]), self._form)

    def pack(self, state: State) -> LstmState:
        """The inverse of `unpack`; where the state has an odd number of entries, c ends in a zero."""
        flat = torch.cat([x.flatten(1) for x in tensors_of(state)], 1)
        if flat.shape[1] % 2:
            flat = nn.functional.pad(flat, (0, 1))
        h, c = flat.unsqueeze(0).chunk(2, -1)
        return h.contiguous(), c.contiguous()


class MinGruPolicy(RecurrentActorCriticPolicy):
    """RecurrentPPO's actor and critic with minGRU where it has LSTMs.

        features = extractor(observation);  y = memory(features);  action, value = heads(net_arch(y))

    Args:
        observation_space, action_space, lr_schedule: set by RecurrentPPO.
        lstm_hidden_size: H, width of the residual blocks and of their memory.
        n_lstm_layers: number of residual blocks; two by default, as one layer of minGRU cannot select what it stores by
            what it has stored.
        shared_lstm: whether the critic reads the actor's memory (without training it, as in RecurrentPPO).
        enable_critic_lstm: whether the critic has a memory of its own; None: unless it shares the actor's.
        lstm_kwargs: options of `Stack` and its mixer: conv, mlp, norm, dropout, candidate, time_scales. A block has no
            MLP of its own unless `mlp` asks for one, as RecurrentPPO's net_arch follows the memory.
        features_extractor_class: None chooses by the observation space: stable-baselines3's CombinedExtractor for a
            Dict, NatureCNN for pictures of at least 36 x 36, else FlattenExtractor.
        settings: further arguments of RecurrentActorCriticPolicy: net_arch, activation_fn, use_sde, ...

    Raises:
        ValueError: settings that contradict each other, or an unknown entry of lstm_kwargs.
    """

    mixer: ClassVar[str] = "min_gru"
    lstm_actor: Any  # a Memory, where RecurrentPPO's own policies have an nn.LSTM
    lstm_critic: Any
    optimizer_class: Any

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        lstm_hidden_size: int = 256,
        n_lstm_layers: int = 2,
        shared_lstm: bool = False,
        enable_critic_lstm: bool | None = None,
        lstm_kwargs: dict[str, Any] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **settings: Any,
    ) -> None:
        enable_critic_lstm = not shared_lstm if enable_critic_lstm is None else enable_critic_lstm
        _check(type(self).__name__, shared_lstm, enable_critic_lstm, settings.get("share_features_extractor", True))
        lstm_kwargs = {"mlp": 0} | (lstm_kwargs or {})
        known = {*inspect.signature(Stack).parameters, *CELLS[self.mixer].option_names} - TAKEN
        check_names(f"entry of lstm_kwargs of {type(self).__name__}", lstm_kwargs, known)
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class or extractor_for(observation_space),
            lstm_hidden_size=lstm_hidden_size,
            shared_lstm=shared_lstm,
            enable_critic_lstm=enable_critic_lstm,
            **settings,
        )
        self.lstm_kwargs, self.n_lstm_layers = lstm_kwargs, n_lstm_layers
        self.lstm_actor = self._memory()
        if enable_critic_lstm:
            self.lstm_critic = self._memory()
        self.lstm_hidden_state_shape = (1, 1, self.lstm_actor.hidden_size)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _memory(self) -> Memory:
        kind: dict[str, Any] = {"mixer": self.mixer, "layers": self.n_lstm_layers, **self.lstm_kwargs}
        return Memory(self.features_dim, self.lstm_output_dim, **kind)

    @staticmethod
    def _process_sequence(features: Tensor, lstm_states: LstmState, episode_starts: Tensor, lstm: Any) -> Any:
        """One pass over sequences: features [B * T, D], row-major as RecurrentPPO pads them -> [B * T, H], states."""
        B = lstm_states[0].shape[1]
        x = features.view(B, -1, features.shape[1]).transpose(0, 1)
        start = episode_starts.view(B, -1).t() > 0.5
        y, after = lstm(x.contiguous(), lstm_states, start.contiguous())
        return y.transpose(0, 1).flatten(0, 1), after

    def _get_constructor_parameters(self) -> dict[str, Any]:
        mine = {"lstm_hidden_size": self.lstm_output_dim, "n_lstm_layers": self.n_lstm_layers}
        mine |= {"shared_lstm": self.shared_lstm, "enable_critic_lstm": self.enable_critic_lstm}
        return super()._get_constructor_parameters() | mine | {"lstm_kwargs": self.lstm_kwargs}


class MinLstmPolicy(MinGruPolicy):
    """`MinGruPolicy` with minLSTM."""

    mixer: ClassVar[str] = "min_lstm"


def extractor_for(space: spaces.Space[Any]) -> type[BaseFeaturesExtractor]:
    """Stable-baselines3's features extractor for an observation space."""
    if isinstance(space, spaces.Dict):
        return CombinedExtractor
    if is_image_space(space) and sorted(space.shape or ())[-2] >= SMALLEST_PICTURE:
        return NatureCNN
    return FlattenExtractor


def _check(who: str, shared: bool, separate: bool, share_features: bool) -> None:
    if shared and separate:
        raise ValueError(f"{who}: shared_lstm=True and enable_critic_lstm=True: the critic has one memory, not two")
    if shared and not share_features:
        raise ValueError(f"{who}: shared_lstm=True needs share_features_extractor=True: one memory reads one input")


RecurrentPPO.policy_aliases |= {policy.__name__: policy for policy in (MinGruPolicy, MinLstmPolicy)}
