"""Recurrent PPO: proximal policy optimisation of a policy that remembers.

Read from top to bottom (the settings are in ppo_config.py): `learn` = collect T steps of B environments, compute
advantages, and for a few epochs step along the gradient of the clipped loss on minibatches of whole environments (or of
shorter windows, `bptt`).
There is no padding and no splitting at episode ends: an encoder resets its memory exactly where `start` says so.

Source: Schulman et al. 2017 (arXiv:1707.06347).
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import gymnasium as gym
import torch
from torch import Tensor

from rlmin.agents.advantages import Advantages, blame
from rlmin.agents.measured import MEASURED, join, read_steps, summarise
from rlmin.agents.online import OnlineAgent
from rlmin.agents.ppo_config import PPOConfig as PPOConfig
from rlmin.agents.ppo_graph import Inputs, make_graph, obstacle, run_as_graph
from rlmin.agents.ppo_loss import Weights, backward_loss, columns_of, make_weights
from rlmin.agents.sb3_form import read_form
from rlmin.agents.sb3_habits import PPOHabits, draw_seed
from rlmin.agents.unroll import Unroll, compile_unroll
from rlmin.agents.warmup import warm_up_policy
from rlmin.distributed import ALONE, Ranks
from rlmin.distributed.streams import make_streams
from rlmin.learning.flat_adam import FlatAdam
from rlmin.learning.losses import explained_variance
from rlmin.learning.opening import Opening
from rlmin.learning.rollout import Collector, Rollout
from rlmin.learning.schedule import schedule
from rlmin.learning.step_graph import StepGraph
from rlmin.policy.fit import check_spaces
from rlmin.policy.readings import warn_of_doubts
from rlmin.runs.callbacks import Hook, start_callback
from rlmin.runs.checkpoint import Tensors, section
from rlmin.runs.progress import Progress, describe_episodes
from rlmin.settings import Count, CountOrZero, Seed, Workers
from rlmin.settings.boundary import checked
from rlmin.settings.sb3_convert import Schedule
from rlmin.types import State, Step, cat_states, map_state
from rlmin.vector import Vector, adapt

if TYPE_CHECKING:
    from tensordict import TensorDict


class PPO(PPOHabits, OnlineAgent):
    """PPO on any environment, with a policy that remembers.

    Args:
        args: by position: the environment; or, as in stable-baselines3, a policy's name and the environment.
        env: a gymnasium id, a gymnasium Env or VectorEnv (any autoreset mode), or a stable-baselines3 VecEnv.
        policy: None, or a policy's name ("MlpLstmPolicy", "MinGruPolicy", "MlpPolicy", ...) or an encoder: then `env`
            is what stable-baselines3 makes of it, a VecEnv, of one environment where there is no `num_envs`.
        config: all settings; or give single ones as keywords, which are the fields of `PPOConfig`, the options of the
            encoder, and stable-baselines3's names of them (`learning_rate`, `n_steps`, `policy_kwargs`, ...).
        seed: of the weights, the environments and the sampled actions; None draws one.
        device: "cpu", "cuda", ..., "auto": CUDA where there is a GPU.
        env_kwargs: for the environment's constructor, if `env` is an id.
        workers: processes that step the environments, if `env` is an id; 0 steps them in this one.
        verbose: 1 prints a table of the log after updates.
        tensorboard_log: folder of TensorBoard events, one run in it for each `learn`; None: none.
        ranks: processes that train one agent together, see `rlmin.distributed.join`; each plays its share of the
            environments. An environment that is no id is this rank's share.

    Raises:
        ValueError: an unknown id, space or setting, settings that contradict each other, or an argument of
            stable-baselines3's without an equivalent.
    """

    name: ClassVar[str] = "ppo"
    about: ClassVar[str] = "Recurrent PPO"
    settings: ClassVar[type[PPOConfig]] = PPOConfig
    config: PPOConfig

    @checked
    def __init__(
        self,
        *args: Any,
        env: Any = None,
        policy: Any = None,
        config: PPOConfig | None = None,
        seed: Seed | None = 0,
        device: torch.device | str = "cpu",
        env_kwargs: dict[str, Any] | None = None,
        workers: Workers = 0,
        verbose: CountOrZero = 0,
        tensorboard_log: str | Path | None = None,
        ranks: Ranks = ALONE,
        **settings: Any,
    ) -> None:
        form: dict[str, Any] = {"env": env, "policy": policy, "env_kwargs": env_kwargs, "workers": workers}
        made = read_form(type(self).__name__, args, config=config or self.settings(), settings=settings, **form)
        seed = draw_seed() if seed is None else seed
        super().__init__(seed=seed, device=device, env_spec=made.env_spec, ranks=ranks)
        self.verbose, self.tensorboard_log = verbose, tensorboard_log
        options: dict[str, Any] = {"workers": workers, "step_timeout": made.config.step_timeout}
        num_envs = None if made.num_envs is None else ranks.share(made.num_envs, "num_envs")
        vector = adapt(made.env, num_envs=num_envs, device=device, env_kwargs=made.env_kwargs, **options)
        self._build(made.config, vector.observation_space, vector.action_space)
        self.schedules |= made.schedules
        warn_of_doubts(self.policy.readings)
        self.attach(vector)

    def _build(self, config: PPOConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Everything that needs no environment."""
        super()._build(config, observation_space, action_space)
        betas, capturable = (0.9, config.beta2), obstacle(self) is None
        self.optimizer = FlatAdam(self.policy.parameters(), lr=config.lr, betas=betas, eps=1e-5, capturable=capturable)
        self.advantages = Advantages(config, self.ranks).to(self.device)
        self.streams = make_streams(self.seed, config.shards, self.ranks, self.generator)
        self.schedules: dict[str, Schedule] = {}  # schedules that are not straight lines; not saved
        self.usual_norm = 0.0  # running mean over updates: see `_compare_norm`

    @cached_property
    def _unroll(self) -> Unroll:
        """The training pass over a minibatch."""
        return compile_unroll(self.policy) if self.config.compile else self.policy.unroll

    @cached_property
    def _graph(self) -> StepGraph | None:
        """The recorder of updates."""
        return make_graph(self)

    def parts(self, *, environment: bool) -> dict[str, Any]:
        """See `OnlineAgent.parts`; a compiled pass is compiled anew, and a graph recorded."""
        own = ("_unroll", "_graph")
        return {name: x for name, x in super().parts(environment=environment).items() if name not in own}

    def attach(self, vector: Vector) -> None:
        """Train in `vector` from now on: see `OnlineAgent.attach`."""
        check_spaces(self.policy, vector, value=True)
        num_envs = vector.num_envs * self.ranks.size
        self.config.minibatches_of(num_envs)
        self._vector, self.config = vector, replace(self.config, num_envs=num_envs)
        self._warm = False  # whether the code for updates of this size is compiled
        self.advantages.begin(vector.num_envs)
        options: dict[str, Any] = {name: getattr(self.config, name) for name in ("horizon", "cuda_graph")}
        options |= {"seed": self.env_seed, "ranks": self.ranks}
        opening = Opening(self.config.initial_state, seed=self.seed, ranks=self.ranks)
        self.collector = Collector(vector, self.policy, generator=self.streams, opening=opening, **options)

    @property
    def rows(self) -> int:
        """B of this rank, if the environment is made from its id."""
        return self.ranks.share(self.config.num_envs, "num_envs")

    @property
    def step_timeout(self) -> float | None:
        """See `PPOConfig`."""
        return self.config.step_timeout

    def warm_up(self) -> None:
        """Compile the code of an update, once for each size."""
        if not self._warm:
            T, W, B = self.config.horizon, self.config.window, self.rows
            rows = B * (T // W) // self.config.minibatches_of(self.config.num_envs)
            with self._autocast():
                warm_up_policy(self.policy, horizon=T, num_envs=B, steps=W, rows=rows)
        self._warm = True

    @checked
    def learn(
        self,
        total_timesteps: CountOrZero,
        callback: Any = None,
        *,
        progress_bar: bool = False,
        reset_num_timesteps: bool = True,
        log_interval: Count | None = 1,
        tb_log_name: str = "PPO",
    ) -> Self:
        """Train.

        Args:
            total_timesteps: environment steps to take, summed over environments; rounded up to whole rollouts.
            callback: stable-baselines3 callback, list of them, or function(locals, globals) -> bool.
            progress_bar: show steps, return, success rate, speed and time left.
            reset_num_timesteps: count from zero, and run the schedules anew; False goes on.
            log_interval: updates between two rows of the log; None: no rows.
            tb_log_name: of the run in the folder `tensorboard_log`.

        Raises:
            FloatingPointError: something became NaN or infinite; the message names it and the step. The weights are
                those of the last good gradient step.
        """
        self.ready()
        ranks = self.ranks
        if reset_num_timesteps:
            self.num_timesteps, self.seconds = 0, 0.0
        first, total = self.num_timesteps, self.num_timesteps + total_timesteps
        self.total_timesteps = total
        self.open_logger(tb_log_name, reset_num_timesteps)
        hook = start_callback(self, callback, total)
        with ranks.first_on_machine():
            self.warm_up()
        before, began = self.seconds, time.perf_counter()
        self.began = began - before
        with self.learning(), Progress(total, first, enabled=progress_bar and ranks.is_main) as progress:
            while self.num_timesteps < total and not ranks.any(self.stop_requested):
                # before the rollout, so that the last update has a learning rate above 0
                metrics = self._collect_and_update(hook, done=self.num_timesteps / total)
                if metrics is None:  # the callback asked to stop
                    break
                took = time.perf_counter() - began
                self.seconds, speed = before + took, (self.num_timesteps - first) / took
                progress.update(self.num_timesteps, speed, describe_episodes(self.collector.statistics))
                if ranks.is_main and log_interval is not None and self.num_updates % log_interval == 0:
                    self.write_log(metrics, speed)
        hook.on_training_end()
        return self

    def _collect_and_update(self, hook: Hook, *, done: float) -> dict[str, float] | None:
        """One rollout under `hook`, and the update from it: what that measured; None where the hook ends training."""
        num_envs = self.config.num_envs

        def on_step(step: Step) -> bool:
            self.num_timesteps += num_envs
            return hook.on_step(step)

        hook.on_rollout_start()
        with self._autocast():
            rollout = self.collector.collect(on_step if hook.wants_steps else None)
        if rollout is None:
            return None
        if not hook.wants_steps:
            self.num_timesteps += num_envs * self.config.horizon
        hook.on_rollout_end()
        with self.training():
            self.measured = self.update(rollout, done=done)
        return self.measured

    def update(self, rollout: Rollout, *, done: float = 0.0) -> dict[str, float]:
        """One PPO update from one rollout.

        Args:
            rollout: [T, B], just collected with the present weights.
            done: share of training that lies behind, in [0, 1], for the schedules.

        Returns:
            means of the logged metrics: losses, divergence, gradient norm, ...

        Raises:
            FloatingPointError: a loss or gradient is NaN or infinite; the step is not taken.
        """
        config = self.config
        lr, entropy, clip = (self.setting_at(done, name) for name in ("lr", "entropy", "clip"))
        self.optimizer.set_rate(lr)
        head, steps = self.policy.value_head, list[Tensor]()
        weights = make_weights(config, head.scale, entropy=entropy, clip=clip)
        kept, (filler, anywhere) = self.advantages.keep(head), self.collector.has_filler(rollout)
        try:
            batch = self.advantages(rollout.batch, head, filler=anywhere)
            self.optimizer.read()  # after the value head has got its unit
            before = self.optimizer.flat.detach().clone()
            self._take_steps(batch.select(*columns_of(batch, config, filler=filler)), rollout.state, weights, steps)
            real = ~batch["filler"] if anywhere else None
            weight = None if real is None else real.float()
            variance = explained_variance(batch["value"], batch["target"], weight, self.ranks)
            moved = (self.optimizer.flat.detach() - before).norm()
            facts = (*self.advantages.facts, moved, variance)
            taken, known = read_steps(steps, facts, self.advantages.check, self.check_finite)
        except BaseException as error:
            if not steps:  # else the unit belongs to the weights of the last step
                self.advantages.give_back(kept, head)
            if isinstance(error, FloatingPointError):
                first_row = self.ranks.rank * self.rows
                raise FloatingPointError(blame(str(error), rollout.batch["reward"], first_row=first_row)) from None
            raise
        self.num_updates += 1
        if config.normalize_observation:
            self.policy.update_normalizer(batch["observation"], real, self.ranks)
        return summarise(taken, config.minibatches_of(config.num_envs), self.ranks) | {
            **self._compare_norm(known[-2]),
            "explained_variance": known[-1],
            "learning_rate": lr,
            "entropy_weight": entropy,
            "gradient_steps": len(taken),
        }

    def _take_steps(self, batch: "TensorDict", state: State, weights: Weights, steps: list[Tensor]) -> None:
        """All gradient steps; what each of them measures is added to `steps`.

        Nothing here waits for a GPU, unless `target_kl` is set: after a step that is not finite the others change
        nothing, and `read_steps` finds it.
        """
        if self._graph is not None and obstacle(self) is None:
            steps += run_as_graph(self, self._graph, Inputs(batch, state, [*self._deals(batch)], weights))
            return
        limit, one_by_one = self.config.target_kl, self.each_step(batch, state, self._deals(batch), weights)
        for step in one_by_one:
            steps.append(step)
            if limit is not None and float(steps[-1][MEASURED.index("approx_kl")]) > 1.5 * limit:
                break

    def each_step(
        self, batch: "TensorDict", state: State, deals: Iterable[list[Tensor]], weights: Weights
    ) -> Iterator[Tensor]:
        """Take the gradient steps of an update one by one, and say what each measures."""
        bad = torch.zeros((), device=self.device)
        for part, first in self._minibatches(batch, state, deals):
            yield self._gradient_step(part, first, weights, bad)

    def _compare_norm(self, norm: float) -> dict[str, float]:
        """How far an update moved the weights, and its ratio to the exponential mean of earlier updates."""
        before = self.usual_norm or norm
        self.usual_norm = 0.9 * before + 0.1 * norm
        return {"update_norm": norm, "update_norm_ratio": norm / before if before else 1.0}

    def setting_at(self, done: float, name: str) -> float:
        """What a setting with a schedule is where the share `done` of training lies behind."""
        if name in self.schedules:
            return float(self.schedules[name](1 - done))
        return schedule(getattr(self.config, name), getattr(self.config, f"{name}_final"), done)

    def _gradient_step(self, part: "TensorDict", state: State, weights: Weights, bad: Tensor) -> Tensor:
        """Forward, loss, backward and one optimizer step on one minibatch [W, rows]; see `measured.join`."""
        with self._autocast():
            out = self._unroll(dict(part["observation"].items()), state, part["start"], part.get("action_mask", None))
        means = backward_loss(out, part, self.policy.value_head.scale, self.config, weights)
        kl_max = means.pop("kl_max")
        with torch.no_grad():
            count = (~part["filler"]).sum() if "filler" in part.keys() else part.numel()  # noqa: SIM118
            norm, means, _ = self.optimizer.average_gradient(self.ranks, means, count)
            found, skip = join({**means, "kl_max": kl_max, "grad_norm": norm}, bad)
            self.optimizer.step_within(norm, self.config.max_grad_norm, skip)
        return found

    def _minibatches(
        self, batch: "TensorDict", state: State, deals: Iterable[list[Tensor]] | None = None
    ) -> Iterator[tuple["TensorDict", State]]:
        """All epochs: shuffled rows, each a whole environment or a window of one, with its initial memory."""
        rollout, first = batch, state
        if self.config.window < self.config.horizon:
            split: Any = rollout.split(self.config.window)  # torch.cat takes TensorDicts, but does not say so
            batch = cast("TensorDict", torch.cat(split, dim=1))  # [W, windows * B], window-major
        for deal in self._deals(rollout) if deals is None else deals:
            state = self._window_states(rollout, first)
            for chosen in deal:
                yield batch[:, chosen], map_state(lambda x, chosen=chosen: x[chosen], state)  # type: ignore[misc]

    def _deals(self, rollout: "TensorDict") -> Iterator[list[Tensor]]:
        """For each epoch the rows of its minibatches, drawn when they are asked for."""
        windows, number = self.config.horizon // self.config.window, self.config.minibatches_of(self.config.num_envs)
        for _ in range(self.config.epochs):
            yield self.streams.deal(windows, rollout.shape[1], number)

    @torch.no_grad()
    def _window_states(self, batch: "TensorDict", state: State) -> State:
        """Memory at the start of every window, [windows * B, ...], under the present weights, so never stale."""
        states = [state]
        for window in batch.split(self.config.window)[:-1]:
            with self._autocast():
                out = self.policy.unroll(dict(window["observation"].items()), states[-1], window["start"])
            states.append(out.state)
        return cat_states(states)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.autocast)

    def write_log(self, metrics: Mapping[str, float] | None = None, speed: float | None = None) -> None:
        """One row of the log: episodes, speed, losses, and how long each unit remembers."""
        from rlmin.runs.logs import record

        speed = self.num_timesteps / max(self.seconds, 1e-9) if speed is None else speed
        facts: dict[str, Any] = {"steps": self.num_timesteps, "seconds": self.seconds, "speed": speed}
        record(self.logger, self.policy, self.collector.statistics, metrics or {}, **facts)
        self.logger.dump(self.num_timesteps)

    def learner_state(self) -> Tensors:
        """Everything training depends on beside the weights, as named tensors."""
        state = super().learner_state()
        state |= self.streams.state_dict(self.ranks)
        state["usual_norm"] = torch.tensor(self.usual_norm, dtype=torch.float64)
        state |= self.advantages.state_dict()
        if self._vector is not None:
            state["discounted"] = self.ranks.gather(self.advantages.discounted)
            state |= {f"collector.{name}": x for name, x in self.collector.state_dict().items()}
        return state

    def load_learner_state(self, tensors: Tensors) -> None:
        """The inverse of `learner_state`, as far as the environment and the device allow."""
        super().load_learner_state(tensors)
        self.streams.load_state_dict(tensors, self.ranks, seed=self.seed + self.num_timesteps)
        self.usual_norm = float(tensors.get("usual_norm", 0.0))
        known = self.advantages.state_dict()  # older versions saved less
        self.advantages.load_state_dict({name: tensors.get(name, x) for name, x in known.items()})
        rows = 0 if self._vector is None else self.config.num_envs
        if rows and "discounted" in tensors and len(tensors["discounted"]) == rows:
            exact = self.collector.load_state_dict(section(tensors, "collector"), seed=self.env_seed)
            if exact:
                self.advantages.discounted = self.ranks.part(tensors["discounted"]).to(self.device)
