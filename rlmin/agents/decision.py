"""Decision agent: a return-conditioned policy that remembers, trained on logged episodes.

Read from top to bottom (settings in decision_config.py, data in decision_data.py): `learn` = draw T steps of B streams
of logged episodes, run the policy over them from the memory after the previous batch, and step along the gradient of
the loss of the logged actions. In training each step sees the return that was still to come; in acting, the target
return takes its place (the wrapper `ReturnToGo`). Without a return it is behaviour cloning.

Source: Chen et al. 2021, decision transformer (arXiv:2106.01345); with minGRU and minLSTM Feng et al. 2024
(arXiv:2410.01201).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlmin.agents import decision_data as data
from rlmin.agents.action_loss import accuracy, action_loss
from rlmin.agents.decision_config import DecisionConfig as DecisionConfig
from rlmin.agents.env_spec import describe_env
from rlmin.agents.offline import OfflineAgent
from rlmin.agents.warmup import warm_up_policy
from rlmin.distributed import ALONE, Ranks
from rlmin.learning.flat_adam import FlatAdam
from rlmin.learning.losses import weighted_mean
from rlmin.learning.opening import Opening
from rlmin.learning.schedule import schedule
from rlmin.policy.heads import Distribution, Gaussian
from rlmin.policy.readings import warn_of_doubts
from rlmin.runs.callbacks import Hook, start_callback
from rlmin.runs.checkpoint import Tensors, section
from rlmin.runs.progress import Progress
from rlmin.settings import Count, CountOrZero, Seed
from rlmin.settings.boundary import checked
from rlmin.spaces import leaf_spaces
from rlmin.types import Observation, State, map_state, tensors_of
from rlmin.wrappers.return_to_go import RETURN_TO_GO

if TYPE_CHECKING:
    from tensordict import TensorDict

    from rlmin.data.dataset import Dataset
    from rlmin.data.packing import Packing

WARMUP_SHARE = 0.1
"""Share of training after which the warm-up is over, however few gradient steps that is."""
ROWS = 20
"""Smallest number of rows of the log, if there are as many gradient steps."""
SPREAD_RATE = 0.01
"""Rate at which the spread of points trained by squared error follows their residuals."""
SMALLEST_VARIANCE = 1e-6
"""Smallest such spread, where [low, high] is [-1, 1]."""


class DecisionAgent(OfflineAgent):
    """Return-conditioned sequence modelling, or behaviour cloning, of logged episodes, with a policy that remembers.

    Args:
        dataset: a Minari id or MinariDataset, a path to D4RL HDF5, a list of `rlmin.data.Episode`, or a `Dataset`.
        env: id of the environment, {"id", "kwargs"}, or an environment with an id, if the data do not name one.
        config: all settings; or give single ones as keywords, which are the fields of `DecisionConfig`.
        seed: random seed for weights, order of the data and sampled actions.
        device: "cpu", "cuda", ...
        trust: let the data import the module that their environment id names, if it names one: see `rlmin.files.trust`.
        skip_bad_episodes: leave out episodes with a fault, with a warning that says which and why.
        ranks: processes that train one agent together, see `rlmin.distributed.join`; each has all data, and reads its
            share of the rows of every batch.

    Raises:
        ValueError: the data cannot be read, or an unknown setting or space, or settings that contradict each other.
    """

    name: ClassVar[str] = "decision"
    about: ClassVar[str] = "A return-conditioned decision agent"
    settings: ClassVar[type[DecisionConfig]] = DecisionConfig
    config: DecisionConfig

    @checked
    def __init__(
        self,
        dataset: Any,
        *,
        env: Any = None,
        config: DecisionConfig | None = None,
        seed: Seed = 0,
        device: torch.device | str = "cpu",
        trust: bool = False,
        skip_bad_episodes: bool = False,
        ranks: Ranks = ALONE,
        **settings: Any,
    ) -> None:
        config = (config or DecisionConfig()).with_settings(settings)
        config.check_context()
        env = data.name_env(env)
        found, source = data.open_data(dataset, env, trust=trust, skip_bad_episodes=skip_bad_episodes)
        if config.return_scale is None:
            config = replace(config, return_scale=data.round_scale(found))
        super().__init__(seed=seed, device=device, env_spec=found.env or describe_env(None), ranks=ranks)
        self.trust = trust
        self._build(
            config, data.make_policy_space(found.observation_space, conditioned=config.conditioned), found.action_space
        )
        warn_of_doubts(self.policy.readings)
        if env is not None:  # an error there should not appear after hours of training
            data.check_env(self.env_spec, self.policy, conditioned=config.conditioned)
        self.attach(found, source)
        if config.normalize_observation:
            self._take_statistics(found)

    def _build(self, config: DecisionConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Everything that needs no data."""
        super()._build(config, observation_space, action_space)
        self._rows = self.ranks.share(config.rows, "rows")  # B of this rank
        if config.dropout and not self.ranks.is_alone:
            message = "several processes would drop other numbers than one; train in one, or set dropout=0"
            raise ValueError(f"dropout={config.dropout}: {message}")
        self._names = frozenset(leaf_spaces(observation_space))
        fixed = ("value_head", "action_head.log_std") if config.loss == "mse" else ("value_head",)
        trained = [x for name, x in self.policy.named_parameters() if not name.startswith(fixed)]
        betas, decay = (0.9, config.beta2), config.weight_decay
        self.optimizer = FlatAdam(trained, lr=config.lr, betas=betas, eps=1e-8, weight_decay=decay)
        self.memory: State | None = None  # [B, ...] memory after the last batch; None: empty
        self.opening = Opening(config.initial_state, seed=self.seed, ranks=self.ranks)
        self._warm = False
        self._order: Tensors = {}  # place in the data of a checkpoint, until they are opened

    def attach(self, dataset: "Dataset", source: dict[str, Any]) -> None:
        """Train on `dataset` from now on: see `OfflineAgent.attach`."""
        config = self.config
        data.check_spaces(dataset, self.policy, conditioned=config.conditioned)
        data.check_masks(dataset, self.policy)
        train, held_out = data.split(dataset, config, self.seed)
        self.packing = data.make_packing(dataset, config, train, seed=self.seed, stagger=True)
        self.packing.columns = slice(self.ranks.rank * self._rows, (self.ranks.rank + 1) * self._rows)
        self._held_out: Packing | None = None
        if len(held_out):
            self._held_out = data.make_packing(dataset, config, held_out, seed=self.seed, stagger=False)
        self.feed = data.make_feed(dataset, self.device, self.packing, self._held_out)
        self._dataset, self.memory, self.source, self._order = dataset, None, source, {}
        self.run["data"] = data.facts(dataset)
        self._widen_range()

    def restore(self, header: dict[str, Any], tensors: Tensors) -> None:
        """See `OfflineAgent.restore`."""
        super().restore(header, tensors)
        if self._dataset is not None:  # which may differ from the checkpoint's data
            self._widen_range()

    def _widen_range(self) -> None:
        """Show the policy every return-to-go of the training data; it clips targets beyond them."""
        for index in self.packing.chunks(data.CHUNK) if self.config.conditioned else ():
            self._show({RETURN_TO_GO: self.packing.return_to_go[index].unsqueeze(-1).to(self.device)})

    def _take_statistics(self, dataset: "Dataset") -> None:
        """Give the policy the mean and variance of the training observations; a return-to-go keeps its unit."""
        for index in self.packing.chunks(data.CHUNK):
            self._show(data.select_leaves(dataset.step["observation"][index].to(self.device), self._names))

    def _show(self, observation: Observation) -> None:
        """Merge leaves [N, ...] into the policy's statistics of the data."""
        rows = len(next(iter(observation.values())))
        self.policy.update_normalizer(observation, torch.ones(rows, dtype=torch.bool, device=self.device))

    def warm_up(self) -> None:
        """Compile the code of an update, once."""
        if not self._warm:
            warm_up_policy(self.policy, horizon=self.config.steps, num_envs=1, rows=self._rows)
        self._warm = True

    @checked
    def learn(
        self,
        total_timesteps: CountOrZero,
        callback: Any = None,
        *,
        progress_bar: bool = False,
        reset_num_timesteps: bool = True,
        log_interval: Count | None = None,
    ) -> Self:
        """Train.

        Args:
            total_timesteps: logged environment steps to train on, repeats counted; rounded up to whole batches.
            callback: stable-baselines3 callback, list of them, or function(locals, globals) -> bool. Its `on_step`
                comes after every gradient step, its rollout ends where a row of the log is written.
            progress_bar: show steps, loss, speed and time left.
            reset_num_timesteps: count from zero, and run the schedules anew; False goes on.
            log_interval: gradient steps between two rows of the log; None: 50, or fewer in a short training.

        Raises:
            FloatingPointError: something became NaN or infinite; the message names it and the step. The weights are
                those of the last good gradient step.
            ValueError: there are no data; see `dataset`.
        """
        self.ready()
        if reset_num_timesteps:
            self.num_timesteps, self.seconds = 0, 0.0
        first, total = self.num_timesteps, self.num_timesteps + total_timesteps
        self.total_timesteps = total
        updates = -(-total // (self.config.rows * self.config.steps))  # of all training, also when resumed
        interval = max(1, min(50, updates // ROWS)) if log_interval is None else log_interval
        hook, ranks = start_callback(self, callback, total), self.ranks
        with ranks.first_on_machine():
            self.warm_up()
        before, began, going_on = self.seconds, time.perf_counter(), True
        with self.learning(), self.feed, Progress(total, first, enabled=progress_bar and ranks.is_main) as progress:
            self.optimizer.read()
            while going_on and self.num_timesteps < total and not ranks.any(self.stop_requested):
                hook.on_rollout_start()
                metrics, going_on = self._round(interval, hook)
                hook.on_rollout_end()
                took = time.perf_counter() - began
                self.seconds, speed = before + took, (self.num_timesteps - first) / took
                progress.update(self.num_timesteps, speed, f"loss {metrics['loss']:.4g}  ")
                if ranks.is_main:
                    self._log(metrics, speed)
            hook.on_training_end()
        return self

    def _round(self, steps: int, hook: Hook) -> tuple[dict[str, float], bool]:
        """At most so many gradient steps; returns the means of their metrics, and whether to go on."""
        taken, total, going_on = list[dict[str, float]](), self.total_timesteps, True
        with self.training():
            while not taken or (going_on and len(taken) < steps and self.num_timesteps < total):
                taken.append(self._step(self.num_timesteps / total))
                going_on = hook.on_step(None) and not (self.stop_requested and self.ranks.is_alone)
        return {name: sum(one[name] for one in taken) / len(taken) for name in taken[0]}, going_on

    def _step(self, done: float) -> dict[str, float]:
        """`update` from the next batch, which stays the next one if the step is not taken."""
        order = self.feed.state_dict()
        try:
            return self.update(self.feed.draw(), done=done)
        except BaseException:
            self.feed.load_state_dict(order)
            raise

    def update(self, batch: "TensorDict", *, done: float = 0.0) -> dict[str, float]:
        """One gradient step.

        Args:
            batch: [T, B], see `Packing.draw`; of streams, the steps that follow those of the batch before.
            done: share of training that lies behind, in [0, 1], for the schedule.

        Returns:
            loss, gradient norm, learning rate, and the share of actions that were the most likely (of choices).

        Raises:
            FloatingPointError: loss or gradient is NaN or infinite; the step is not taken.
        """
        config, batch = self.config, batch.to(self.device)
        weight = batch.get("weight", None)
        state, start = self.memory or self.policy.initial_state(self._rows), batch["start"]
        if self.opening.changes:
            empty, start = self.policy.initial_state(self._rows), start.clone()
            state, start[0] = self.opening(state, empty, start[0], number=self.num_updates)
        with self._dropout(), self._autocast():
            out = self.policy.unroll(self._select_inputs(batch), state, start, data.legal_actions(batch, self.policy))
        means = self._measure_loss(out.distribution, batch)
        means["loss"].backward()  # type: ignore[no-untyped-call]
        residuals = self._residuals(out.distribution, batch)
        norm, found, rows = self.optimizer.average_gradient(
            self.ranks, {**means, **residuals}, batch.numel() if weight is None else weight.sum()
        )
        measured = {name: found[name] for name in means} | {"grad_norm": norm}
        numbers = torch.stack([x.detach().float() for x in measured.values()]).tolist()  # one transfer
        values: dict[str, float] = dict(zip(measured, numbers, strict=True))
        self.check_finite({name: values[name] for name in ("loss", "grad_norm")})
        size = config.rows * config.steps
        warm = min(max((self.num_timesteps + size) / max(config.warmup_steps * size, 1), done / WARMUP_SHARE), 1.0)
        lr = self.optimizer.param_groups[0]["lr"] = warm * schedule(config.lr, config.last_lr, done)
        memory = map_state(Tensor.detach, out.state) if self.packing.carries or self.opening.hides_starts else None
        fit = self._spread(out.distribution, [found[name] for name in residuals])
        self.optimizer.step_within(norm, config.max_grad_norm)
        if fit is not None:
            fit[0].copy_(fit[1])
        self.memory, self.num_timesteps, self.num_updates = memory, self.num_timesteps + int(rows), self.num_updates + 1
        return values | {"learning_rate": lr}

    @torch.no_grad()
    @checked
    def held_out(self, *, batches: Count | None = None) -> dict[str, float]:
        """The open-loop loss on the held-out episodes: the mean over their steps.

        Args:
            batches: at most so many, from the beginning of their order; None: all, so that every step counts once.

        Returns:
            "held_out_loss" and, for choices, "held_out_accuracy"; empty without held-out episodes.
        """
        self.ready()
        packing = self._held_out
        if packing is None:
            return {}
        sums, weight = dict[str, float](), 0.0
        state = fresh = self.policy.initial_state(self.config.rows)
        for batch in packing.once(batches):
            batch = batch.to(self.device)
            with self._autocast():
                out = self.policy.unroll(
                    self._select_inputs(batch), state, batch["start"], data.legal_actions(batch, self.policy)
                )
            state = out.state if packing.carries else fresh
            steps = float(batch["weight"].sum())
            for name, x in self._measure_loss(out.distribution, batch).items():
                sums[name] = sums.get(name, 0.0) + float(x) * steps
            weight += steps
        return {f"held_out_{name}": x / weight for name, x in sums.items()}

    def _select_inputs(self, batch: "TensorDict") -> Observation:
        """The policy's view of a batch: leaves [T, B, ...]."""
        observation = data.select_leaves(batch["observation"], self._names)
        if self.config.conditioned:
            observation[RETURN_TO_GO] = batch["return_to_go"]
        return self.policy.with_previous(observation, batch["previous_action"], batch["previous_reward"])

    def _measure_loss(self, distribution: Distribution, batch: "TensorDict") -> dict[str, Tensor]:
        """The loss and, for choices, the share of actions that were the most likely: means over the batch."""
        action, weight = batch["action"], batch.get("weight", None)
        found = {"loss": weighted_mean(action_loss(distribution, action, of_point=self.config.loss), weight)}
        right = accuracy(distribution, action)
        return found if right is None else found | {"accuracy": weighted_mean(right, weight)}

    @torch.no_grad()
    def _residuals(self, distribution: Distribution, batch: "TensorDict") -> dict[str, Tensor]:
        """The mean of (action - mean)^2 on each axis of a point trained by squared error; empty for other actions."""
        if self.config.loss != "mse" or not isinstance(distribution, Gaussian):
            return {}
        square, weight = (distribution.mean - batch["action"]).square(), batch.get("weight", None)
        return {f"residual {axis}": weighted_mean(part, weight) for axis, part in enumerate(square.unbind(-1))}

    @torch.no_grad()
    def _spread(self, distribution: Distribution, residuals: list[Tensor]) -> tuple[Tensor, Tensor] | None:
        """The spread of a point trained by squared error: that of the residuals, as this loss trains no spread.

        var <- var + rate * (residual - var),    rate = 1 / (updates + 1), at least SPREAD_RATE

        Returns:
            the tensor that keeps the log of the spread, and its new value; None if there is none to fit.
        """
        if not residuals:
            return None
        assert isinstance(distribution, Gaussian), "only a point has residuals"
        log_std, rate = distribution.log_std, max(1 / (self.num_updates + 1), SPREAD_RATE)
        var = (2 * log_std).exp().lerp_(torch.stack(residuals), rate)
        return log_std.data, var.clamp_(min=SMALLEST_VARIANCE).log_().mul_(0.5)

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        """Dropout drawn from the seed and the number of the gradient step, so that a resumed run draws the same."""
        if self.config.dropout == 0:
            yield
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence((self.seed, self.num_updates)).generate_state(1)[0]))
            yield

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.autocast)

    def _log(self, metrics: dict[str, float], speed: float) -> None:
        """One row of the log: speed, losses, and how long each unit remembers."""
        from rlmin.runs.logs import record

        metrics = metrics | self.held_out(batches=1) | {"gradient_steps": self.num_updates}
        record(self.logger, self.policy, None, metrics, steps=self.num_timesteps, seconds=self.seconds, speed=speed)
        self.logger.dump(self.num_timesteps)

    def learner_state(self) -> Tensors:
        """Everything training depends on beside the weights, as named tensors."""
        state = super().learner_state()
        if self._dataset is None:
            return state | self._order
        state |= {f"packing.{name}": x for name, x in self.feed.state_dict().items()}
        if self.memory is not None:
            state |= {f"memory.{i}": self.ranks.gather(x) for i, x in enumerate(tensors_of(self.memory))}
        return state

    def load_learner_state(self, tensors: Tensors) -> None:
        """The inverse of `learner_state`, as far as the data and the device allow."""
        super().load_learner_state(tensors)
        self._order = {name: x for name, x in tensors.items() if name.startswith(("packing.", "memory."))}
        if self._dataset is not None:
            self.restore_order(self._order)

    def restore_order(self, tensors: Tensors) -> None:
        """Continue in the order of the data at the place of a checkpoint, with its memory."""
        self._order = {}
        if not tensors:
            return
        self.feed.load_state_dict(section(tensors, "packing"))
        kept = section(tensors, "memory")
        parts = iter([self.ranks.part(kept[str(i)]).to(self.device) for i in range(len(kept))])
        self.memory = map_state(lambda _: next(parts), self.policy.initial_state(self.config.rows)) if kept else None
