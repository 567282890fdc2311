"""The settings of a policy, and how options of its encoder travel with them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal, Self, TypeAlias

from rlmin.encoders import CELLS, Cell
from rlmin.encoders.attention import Context
from rlmin.encoders.candidate import Candidate
from rlmin.encoders.cell import option_names
from rlmin.encoders.heads import Heads
from rlmin.encoders.time_scale import Spread
from rlmin.settings import Known, Range, Settings, ShareBelowOne
from rlmin.settings.sb3_names import check_settings

EncoderName: TypeAlias = str
"""Name of a registered cell: `rlmin list encoders`."""
Width = Annotated[int, Range(least=1, most=65_536)]
WidthOrZero = Annotated[int, Range(least=0, most=65_536)]
Layers = Annotated[int, Range(least=1, most=1024)]
LayersOrZero = Annotated[int, Range(least=0, most=1024)]
LogStd = Annotated[float, Range(least=-20, most=20)]
OWN_DEFAULT: dict[str, Any] = {"candidate": None, "time_scales": "default", "heads": None, "context": None}
"""Options of encoders that are settings of their own, and the value that stands for the encoder's default."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(Settings):
    """What the policy is made of; shared by every agent."""

    encoder: Annotated[EncoderName, Known(CELLS)] = "min_gru"  # Memory of the policy, or several, a+b; "mlp": none
    width: Width = 128  # Number of features D and of memory units H
    layers: Layers = 2  # Number of residual blocks
    conv: WidthOrZero = 4  # Width of the causal convolution before each memory; 0: none
    mlp: LayersOrZero = 2  # Expansion of the MLP after each memory; 0: none
    candidate: Candidate | None = None  # Activation of the candidate in minGRU and minLSTM; None: the encoder's default
    time_scales: Spread | Literal["default"] | None = "default"  # Steps that minGRU and minLSTM remember at first
    heads: Heads | None = None  # Number of heads of attention and aaren; None: the encoder's default
    context: Context | None = None  # Inputs that attention sees, the present one included; None: the encoder's default
    encoder_options: dict[str, Any] = field(default_factory=dict)  # Further options of the encoder, by name
    dropout: ShareBelowOne = 0.0  # Share of every residual update that is dropped in training
    previous_action: bool = False  # Whether the policy sees the action taken one step ago
    previous_reward: bool = False  # Whether the policy sees the reward received one step ago
    share_memory: bool = True  # Whether actor and critic read one memory; False gives each its own
    log_std: LogStd = 0.0  # Log of the deviation of a Box action before training, where [low, high] is [-1, 1]
    squash: bool = False  # Whether a Box action is the tanh of a Gaussian's sample, which never leaves its bounds
    privileged: tuple[str, ...] = ()  # Entries of a Dict observation that the value alone reads; acting needs none
    normalize_observation: bool = False  # Whether numbers and choices (one-hot) are brought to mean 0 and deviation 1
    pictures: tuple[str, ...] = ()  # Names of the leaves that are read as pictures; "observation" where there is one
    symbols: tuple[str, ...] = ()  # Names of the leaves that are read as grids of symbols, as MiniGrid's image
    numbers: tuple[str, ...] = ()  # Names of the leaves that are read as numbers, whatever they look like
    tokens: Literal["fused", "triple"] = "fused"  # Inputs of the memory a step: one sum, or one after the other

    def __post_init__(self) -> None:
        super().__post_init__()
        taken = [f.name for f in fields(self) if f.name in self.cell.option_names and f.name not in OWN_DEFAULT]
        if taken:
            raise ValueError(f"encoder {self.encoder!r}: its option {taken[0]!r} has the name of a setting; rename it")
        options = self.cell_options
        for name in OWN_DEFAULT:  # an option has one place, so that equal configs compare equal
            if name in self.encoder_options:
                object.__setattr__(self, name, options[name])
        further = {name: options[name] for name in self.encoder_options if name not in OWN_DEFAULT}
        object.__setattr__(self, "encoder_options", further)
        if self.privileged and len(set(self.privileged)) < len(self.privileged):
            raise ValueError(f"privileged: expected every name once, got {', '.join(self.privileged)}")
        if self.tokens == "triple" and not self.cell.remembers:
            raise ValueError(f"tokens='triple' needs a memory; encoder={self.encoder!r} sees the observation alone")
        if self.conv == 1:
            raise ValueError("conv: expected 0 for none, or a width of at least 2, got 1")

    @property
    def cell(self) -> Cell:
        """The registration of the encoder."""
        return CELLS[self.encoder]

    @property
    def cell_options(self) -> dict[str, Any]:
        """Every option of the encoder, those that were not given by its own default."""
        given = {name: getattr(self, name) for name, default in OWN_DEFAULT.items() if getattr(self, name) != default}
        return self.cell.options_of(given | self.encoder_options)

    def with_settings(self, given: Mapping[str, Any]) -> Self:
        """These settings with some replaced; a name that is no setting is an option of the encoder.

        Raises:
            ValueError: neither has that name, or the value does not fit.
        """
        own = [setting.name for setting in fields(self)]
        options = {name: value for name, value in given.items() if name not in own}
        settings = {name: value for name, value in given.items() if name in own}
        changed = settings.get("encoder", self.encoder)
        if isinstance(changed, str) and changed in CELLS:
            _check_options(CELLS[changed], options, own)
        merged = self.encoder_options | dict(settings.pop("encoder_options", {})) | options
        return replace(self, **settings, encoder_options=merged)

    def to_saved(self) -> dict[str, Any]:
        """The settings as a file keeps them: with every option of the encoder, whatever its default will be."""
        options = self.cell_options
        own = {name: options.pop(name, None) for name in OWN_DEFAULT}
        return asdict(self) | own | {"encoder_options": options}

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> Self:
        """The settings that a file keeps.

        Raises:
            ValueError: the encoder is not registered here, or a setting does not fit.
        """
        name = saved.get("encoder", cls.encoder)
        check_registered(name)
        foreign = set(OWN_DEFAULT) - set(CELLS[name].option_names)  # files have named these whatever the encoder
        return cls(**{key: value for key, value in saved.items() if key not in foreign})


def check_registered(encoder: Any) -> None:
    """Raise a ValueError if no such encoder is registered here. The file that names it may still be in order."""
    if not isinstance(encoder, str) or encoder not in CELLS:
        hint = "import the module that registers it first, as --env MODULE:ID does"
        raise ValueError(f"encoder {encoder!r:.80} is not registered here: {hint}; known: {', '.join(CELLS)}")


def _check_options(cell: Cell, options: Mapping[str, Any], settings: list[str]) -> None:
    """Raise a ValueError for the first name that is neither a setting nor an option of the encoder."""
    for name in options:
        if name in option_names():
            cell.check_options((name,))
        check_settings([name], {*settings, *cell.option_names})
