"""Gymnasium vector environments, in their three autoreset modes, as `Step` records."""

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor

from rlmin.envs.tensor_env import TensorEnv
from rlmin.spaces import leaf_tensor, pick, require_leaf
from rlmin.types import Observation, Step
from rlmin.vector.base import MASK, SUCCESS, Vector
from rlmin.vector.infos import row_of, split_infos
from rlmin.wrappers.host import VectorWrapped


class GymVector(Vector):
    """A gymnasium vector environment in any of its three autoreset modes, of arrays or of tensors."""

    def __init__(self, env: VectorEnv[Any, Any, Any], *, device: torch.device | str, seed: int | None) -> None:
        self._autoreset = autoreset_mode(env)
        super().__init__(
            env,
            num_envs=env.num_envs,
            observation_space=env.single_observation_space,
            action_space=env.single_action_space,
            mode=f"gymnasium {self._autoreset.name}",
            device=device,
            seed=seed,
        )
        # these two return fresh arrays; any other may overwrite its buffer in the next step
        self._copy = not (isinstance(env, SyncVectorEnv | AsyncVectorEnv) and env.copy)
        self._home: torch.device | None = None  # of a tensor env
        self._ended = torch.zeros(env.num_envs, dtype=torch.bool, device=self.device)

    @property
    def truncates(self) -> bool:
        """See `Vector.truncates`."""
        env = self.env
        while isinstance(env, VectorWrapped):  # none of them ends an episode
            env = env.env
        return env.truncates if isinstance(env, TensorEnv) else True

    @property
    def fills(self) -> bool:
        """See `Vector.fills`."""
        return self._autoreset is AutoresetMode.NEXT_STEP

    def reset(self, seed: int | None = None) -> Step:
        seed = self._first_seed(seed)
        raw, infos = self.heard = self._call(self.env.reset, seed=seed)
        first = pick(raw, self._leaves[0].path)
        self._home = first.device if isinstance(first, Tensor) else None
        self._ended = torch.zeros_like(self._ended)
        mask, known = self._mask(raw, infos)
        return self._open_episodes(self._observe(raw, copy=self._copy), self._settle_mask(mask, known, None))

    def step(self, action: Tensor) -> Step:
        self._check_action(action)
        raw, reward, terminated, truncated, infos = self._call(self.env.step, self._for_env(action))
        self.heard = raw, infos
        reward = self._column("reward", reward, torch.float32)
        terminated = self._column("terminated", terminated, torch.bool)
        truncated = self._column("truncated", truncated, torch.bool) & ~terminated
        if self._autoreset is AutoresetMode.NEXT_STEP:
            filler = self._ended
            reward, terminated, truncated = reward.masked_fill(filler, 0.0), terminated & ~filler, truncated & ~filler
        else:
            filler = torch.zeros_like(self._ended)
        ended = terminated | truncated
        observation, final = self._observe(raw, copy=self._copy), None
        mask, known = self._mask(raw, infos)
        if self._autoreset is AutoresetMode.SAME_STEP:
            final = self._final(infos, observation, ended)
        elif self._on_gpu() or bool(ended.any()):
            final = observation
        success = self._settle_success(self._success(infos))
        if self._autoreset is AutoresetMode.DISABLED and bool(ended.any()):
            if self._home is not None:  # the reset may overwrite these
                final = {name: leaf.clone() for name, leaf in observation.items()}
                reward, terminated = reward.clone(), terminated.clone()
                success = None if success is None else success.clone()
            raw, infos = self._call(self.env.reset, options={"reset_mask": ended.cpu().numpy()})
            observation = self._observe(raw, copy=self._copy)
            mask, known = self._after_reset(mask, known, *self._mask(raw, infos))
        self._ended = ended
        return Step(
            observation=observation,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            start=filler if self._autoreset is AutoresetMode.NEXT_STEP else ended,
            filler=filler,
            final_observation=final,
            action_mask=self._settle_mask(mask, known, ended if self._autoreset is AutoresetMode.NEXT_STEP else None),
            success=success,
        )

    def infos(self, step: Step) -> list[dict[str, Any]]:
        """See `Vector.infos`; after a step in DISABLED mode, those of that step."""
        raw, reported = self.heard
        rows = split_infos(reported, self.num_envs)
        final = raw
        if self._autoreset is AutoresetMode.SAME_STEP:
            last = split_infos(reported.get("final_info", {}), self.num_envs)
            final = reported.get("final_obs", reported.get("final_observation"))
        for row in (step.terminated | step.truncated).nonzero().flatten().tolist():
            if self._autoreset is AutoresetMode.SAME_STEP:
                rows[row] = last[row]
            rows[row]["TimeLimit.truncated"] = bool(step.truncated[row])
            if final is not None:
                rows[row]["terminal_observation"] = row_of(final, row)
        return rows

    def _for_env(self, action: Tensor) -> Any:
        if self._home is not None:
            return action.to(self._home)
        return action.detach().cpu().numpy().astype(self.action_space.dtype, copy=False)

    def _final(self, infos: dict[str, Any], observation: Observation, ended: Tensor) -> Observation | None:
        """The state reached in rows that ended; None if none did, or if a GPU environment gives none."""
        key = "final_obs" if "final_obs" in infos else "final_observation"
        final: Any = infos.get(key)
        each = isinstance(final, np.ndarray) and final.dtype == object  # an observation or None for each row
        if not self._on_gpu():
            if not bool(ended.any()):
                return None
            reported = np.array([one is not None for one in final]) if each else infos.get(f"_{key}", final is not None)
            lacking = ended & ~torch.as_tensor(reported, dtype=torch.bool, device=self.device)
            if bool(lacking.any()):
                row = int(lacking.nonzero()[0])
                raise ValueError(f"environment {row} ended{self._where()} without infos['final_obs'] (SAME_STEP)")
        if final is None:
            return None
        if each:
            return self._patch(observation, final, ended.nonzero().flatten().tolist())
        return self._observe(final)

    def _on_gpu(self) -> bool:
        """Whether this is a tensor environment on an accelerator, where reading a value would wait for it."""
        return self._home is not None and self._home.type != "cpu"

    def _success(self, infos: dict[str, Any]) -> Tensor | None:
        # after a SAME_STEP reset the plain infos belong to the new episode
        reported = infos.get("final_info", infos) if self._autoreset is AutoresetMode.SAME_STEP else infos
        key = next((name for name in SUCCESS if name in reported), None) if isinstance(reported, dict) else None
        if key is None:
            return None
        value = reported[key]
        return self._column(key, value if isinstance(value, Tensor) else np.asarray(value).astype(bool), torch.bool)

    def _mask(self, raw: Any, infos: dict[str, Any]) -> tuple[Tensor | None, Tensor | None]:
        """The action mask [B, A] on the device, and the rows [B] that have one (None: all)."""
        if self._mask_observed:
            return self._flag_rows(raw[MASK], None), None
        if MASK not in infos:
            return None, None
        present = infos.get(f"_{MASK}")
        known = None if present is None else self._column(f"_{MASK}", present, torch.bool)
        return self._flag_rows(infos[MASK], known), known

    def _flag_rows(self, value: Any, known: Tensor | None) -> Tensor:
        if not isinstance(value, Tensor):
            array = np.asarray(value)
            if array.dtype == object:  # masks that were lists
                width = self._flags or len(next(row for row in array if row is not None))
                array = np.array([np.ones(width) if row is None else row for row in array])
            value = torch.from_numpy(array.astype(bool))
        if value.ndim < 2 or value.shape[0] != self.num_envs:
            raise ValueError(f"{MASK}: expected [B={self.num_envs}, A], got {list(value.shape)}{self._where()}")
        mask: Tensor = value.to(device=self.device, dtype=torch.bool)
        return mask.flatten(1)

    def _after_reset(
        self, mask: Tensor | None, known: Tensor | None, fresh: Tensor | None, fresh_known: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        if mask is None or fresh is None or fresh_known is None:
            return (mask, known) if fresh is None else (fresh, fresh_known)
        return torch.where(fresh_known.unsqueeze(1), fresh, mask), None if known is None else known | fresh_known

    def _name_bad_leaf(self) -> None:
        """Name the leaf and the environment if SyncVectorEnv failed to stack observations."""
        inner = self.env.unwrapped
        latest: list[Any] = inner._env_obs if isinstance(inner, SyncVectorEnv) else []
        for row, raw in enumerate(latest):
            if raw is not None:
                self._observe_one(raw, row)

    def _observe_one(self, raw: Any, row: int) -> None:
        for leaf in self._leaves:
            value = np.asarray(require_leaf(raw, leaf, f" from environment {row}{self._where()}"))[None]
            leaf_tensor(value, leaf, 1, copy=True, where=self._where(), rows=[row])


def autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """The autoreset mode that `env` declares; a ValueError if it declares none."""
    mode = (env.metadata or {}).get("autoreset_mode")
    try:
        return mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
    except ValueError:
        raise ValueError(
            f"{env}: metadata['autoreset_mode'] is {mode!r}; set it to a gymnasium.vector.AutoresetMode, "
            "since guessing when this environment resets would corrupt the data"
        ) from None
