"""The library's environments are registered as soon as gymnasium is there, and not before.

Registering imports every game, and with it torch. `rlmin --help` needs neither, so `import rlmin` loads nothing that
nobody has asked for. But `gym.make("rlmin/TMaze-v0")` has to work after it, whichever of the two was imported first.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


class AfterGymnasium(MetaPathFinder):
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
