"""What importing rlmin adds to Python's import system: two finders.

`OldNames` finds modules that moved under their old path, for one release. `import rlmin.losses`, `from rlmin.losses
import value_loss` and `from rlmin import losses` warn, and give the module of the new place, not a copy.

`AfterGymnasium` registers the environments as soon as gymnasium is there, and not before. Registering imports every
game, and with it torch. `rlmin --help` needs neither, so `import rlmin` loads nothing that nobody has asked for. But
`gym.make("rlmin/TMaze-v0")` has to work after it, whichever of the two was imported first.

Neither derives from a class of `importlib.abc`: importing that would double the time of `import rlmin`.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

MOVED = {
    "rlmin.actor": "rlmin.policy.actor",
    "rlmin.agents.flat_adam": "rlmin.learning.flat_adam",
    "rlmin.agents.schedule": "rlmin.learning.schedule",
    "rlmin.arena": "rlmin.vector.arena",
    "rlmin.atomic": "rlmin.files.atomic",
    "rlmin.boundary": "rlmin.settings.boundary",
    "rlmin.callbacks": "rlmin.runs.callbacks",
    "rlmin.checkpoint": "rlmin.runs.checkpoint",
    "rlmin.collect": "rlmin.evaluation.collect",
    "rlmin.collect_run": "rlmin.commands.collect",
    "rlmin.curves": "rlmin.runs.curves",
    "rlmin.episodes": "rlmin.vector.episodes",
    "rlmin.evaluate": "rlmin.evaluation.evaluate",
    "rlmin.evaluate_run": "rlmin.commands.evaluate",
    "rlmin.export_run": "rlmin.commands.export",
    "rlmin.faults": "rlmin.vector.faults",
    "rlmin.header": "rlmin.runs.header",
    "rlmin.heads": "rlmin.policy.heads",
    "rlmin.hub_snapshot": "rlmin.runs.hub_snapshot",
    "rlmin.inputs": "rlmin.policy.inputs",
    "rlmin.inspect_run": "rlmin.commands.inspect",
    "rlmin.interop.agreement": "rlmin.export.agreement",
    "rlmin.interop.description": "rlmin.export.description",
    "rlmin.interop.form": "rlmin.export.form",
    "rlmin.interop.numpy_export": "rlmin.export.numpy_export",
    "rlmin.interop.numpy_inputs": "rlmin.export.numpy_inputs",
    "rlmin.interop.numpy_memory": "rlmin.export.numpy_memory",
    "rlmin.interop.numpy_policy": "rlmin.export.numpy_policy",
    "rlmin.interop.onnx": "rlmin.export.onnx",
    "rlmin.interop.torch_export": "rlmin.export.torch_export",
    "rlmin.lock": "rlmin.files.lock",
    "rlmin.logs": "rlmin.runs.logs",
    "rlmin.losses": "rlmin.learning.losses",
    "rlmin.make": "rlmin.vector.make",
    "rlmin.normalize": "rlmin.policy.normalize",
    "rlmin.parse": "rlmin.commands.parse",
    "rlmin.parse_agent": "rlmin.commands.parse_agent",
    "rlmin.plain": "rlmin.files.plain",
    "rlmin.play": "rlmin.evaluation.play",
    "rlmin.plot_run": "rlmin.commands.plot",
    "rlmin.plots": "rlmin.runs.plots",
    "rlmin.policy_config": "rlmin.policy.config",
    "rlmin.policy_step": "rlmin.policy.step",
    "rlmin.predict": "rlmin.policy.predict",
    "rlmin.presets": "rlmin.commands.presets",
    "rlmin.progress": "rlmin.runs.progress",
    "rlmin.read_yaml": "rlmin.files.read_yaml",
    "rlmin.readings": "rlmin.policy.readings",
    "rlmin.returns": "rlmin.learning.returns",
    "rlmin.rollout": "rlmin.learning.rollout",
    "rlmin.rollout_graph": "rlmin.learning.rollout_graph",
    "rlmin.run_groups": "rlmin.runs.groups",
    "rlmin.sb3_names": "rlmin.settings.sb3_names",
    "rlmin.scores": "rlmin.evaluation.scores",
    "rlmin.space_json": "rlmin.spaces.as_json",
    "rlmin.statistics": "rlmin.runs.statistics",
    "rlmin.targets": "rlmin.evaluation.targets",
    "rlmin.tokens": "rlmin.policy.tokens",
    "rlmin.train": "rlmin.commands.train",
    "rlmin.train_config": "rlmin.commands.train_config",
    "rlmin.training_run": "rlmin.commands.training_run",
    "rlmin.trust": "rlmin.files.trust",
    "rlmin.vector_gym": "rlmin.vector.gym",
    "rlmin.vector_sb3": "rlmin.vector.sb3",
    "rlmin.verify": "rlmin.evaluation.verify",
    "rlmin.video": "rlmin.commands.film",
    "rlmin.watchdog": "rlmin.commands.watchdog",
    "rlmin.workers": "rlmin.vector.workers",
}


class OldNames:
    """Finds the modules of `MOVED` under their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of an old name; None for any other."""
        loader: Any = self
        return ModuleSpec(fullname, loader) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system to make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new place where the import system looks for the old one."""
        old = module.__name__
        new = MOVED[old]
        warnings.warn(f"{old} is now {new}; the old name goes with the next release", DeprecationWarning, stacklevel=2)
        sys.modules[old] = importlib.import_module(new)


def keep_old_names() -> None:
    """Let the import system find old names, after everything else has been asked."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.append(OldNames())


class AfterGymnasium:
    """Finds gymnasium as usual, and registers the environments right after its import; works once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of gymnasium, whose loader also registers; None for any other module."""
        if fullname != "gymnasium":
            return None
        sys.meta_path.remove(self)  # the usual finders answer from here on
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            _register()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    import rlmin.envs  # it registers itself; where it is just being imported, at its own end  # noqa: F401


def register_with_gymnasium() -> None:
    """Register the environments: now if gymnasium is imported already, else when it is."""
    if "gymnasium" in sys.modules:
        _register()
    elif not any(isinstance(finder, AfterGymnasium) for finder in sys.meta_path):
        sys.meta_path.insert(0, AfterGymnasium())
