"""What to write instead of a name that scripts for stable-baselines3 read on an agent, a policy or in a callback."""

from collections.abc import Collection, Mapping

from rlmin.checks import find_near
from rlmin.settings.sb3_names import SB3_NAMES, answer

ACT = "`agent.predict(observation, state, episode_start)` returns the action and the memory after it"
RUN = "`policy.step(observation, state, start)` and `policy.unroll(...)` return distribution, value and memory"
MEMORY = "`policy.initial_state(rows)` is the memory of who has seen nothing"
MODULES = "the modules are `policy.trunks` (inputs and memory), `policy.action_head` and `policy.value_head`"
LOAD = "`agent.set_parameters(folder)` takes over weights, `load(folder)` makes the agent"
BY_CALLBACK = "`callback=EvalCallback(env, eval_freq=..., n_eval_episodes=...)` evaluates"

OF_AGENT: Mapping[str, str] = {
    "rollout_buffer": "the last rollout is `agent.collector.buffer`, tensors [T, B] by name",
    "replay_buffer": "PPO keeps no steps from before the last rollout",
    "collect_rollouts": "`agent.collector.collect()` takes the steps of one rollout",
    "train": "`agent.update(agent.collector.collect())` is one update",
    "policy_class": "every policy is a `rlmin.Policy`; `agent.config.encoder` names its memory",
    "policy_kwargs": "`agent.config` has them, as `encoder`, `width`, `layers`, ...",
    "policy_aliases": "`rlmin list encoders` names the memories; a policy's name is converted to one",
    "start_time": "`agent.seconds` is the time of learning so far",
    "load_parameters": LOAD,
    "load_replay_buffer": "PPO keeps no steps from before the last rollout",
    "_dump_logs": "`agent.dump_logs()` writes a row of the log",
    "_episode_num": "`agent.collector.statistics.episodes` counts them",
    "_last_obs": "the observation acted on next is `agent.collector.observation`",
    "_last_lstm_states": "the memory is `agent.collector.state`",
    "_last_episode_starts": "it is `agent.collector.now.start`",
    "_setup_model": "an agent is ready once it is made",
    "_setup_learn": "`agent.learn(total_timesteps)` does everything",
    "_update_learning_rate": "the update does it; set `agent.learning_rate`",
    "_wrap_env": "`agent.set_env(env)` takes any environment",
    "_vec_normalize_env": "`agent.get_vec_normalize_env()` returns it",
    "action_noise": "actions are drawn from a distribution; `entropy` keeps it wide",
    "evaluate": "evaluate_policy(agent, env) of stable-baselines3 does it, and `rlmin evaluate RUN`",
    "fit": "`agent.learn(total_timesteps)` trains it",
    "get_action": ACT,
    "select_action": ACT,
    "compute_single_action": ACT,
}

OF_POLICY: Mapping[str, str] = {
    "optimizer": "it is `agent.optimizer`; set `agent.learning_rate` to change its rate",
    "obs_to_tensor": ACT,
    **dict.fromkeys(("get_distribution", "predict_values", "evaluate_actions"), RUN),
    **dict.fromkeys(("lstm_actor", "lstm_critic", "mlp_extractor", "features_extractor"), MODULES),
    **dict.fromkeys(("action_net", "value_net", "action_dist", "log_std", "critic"), MODULES),
    "save": "`agent.save(folder)` keeps it, and torch.save(policy.state_dict(), file) the weights alone",
    "load": LOAD,
    **dict.fromkeys(("extract_features", "make_features_extractor", "features_dim", "init_weights"), MODULES),
    **dict.fromkeys(("pi_features_extractor", "vf_features_extractor", "dist_kwargs", "lstm_output_dim"), MODULES),
    **dict.fromkeys(("scale_action", "unscale_action"), "`policy.action_head.to_env(action)` scales"),
    "is_vectorized_observation": "`agent.predict` takes one observation or a batch of them",
    "parameters_to_vector": "torch.nn.utils.parameters_to_vector(policy.parameters()) does it",
    "load_from_vector": "torch.nn.utils.vector_to_parameters(vector, policy.parameters()) does it",
    "lstm_hidden_state_shape": MEMORY,
    "reset_noise": "noise is drawn anew at every step",
    "recurrent_initial_state": MEMORY,
}

OF_LOCALS: Mapping[str, str] = {
    "rollout_buffer": "it is `self.model.collector.buffer`, tensors [T, B] by name",
    "lstm_states": "the memory is `self.model.collector.state`",
    "obs_tensor": "the observation acted on is in `self.model.collector.buffer`, the next one is new_obs",
    "iteration": "`self.model.num_updates` counts them",
}

OF_ARGUMENT: Mapping[str, str] = dict.fromkeys(
    ("eval_env", "eval_freq", "n_eval_episodes", "eval_log_path"), BY_CALLBACK
)


SETTINGS = {here.setting for here in SB3_NAMES.values() if here.setting is not None}


def missing(owner: str, name: str, answers: Mapping[str, str], known: Collection[str]) -> str:
    """What an AttributeError says about a name that is not there.

    Args:
        owner: class, for the message.
        answers: names known from elsewhere -> what to write.
        known: names that are there.
    """
    advice = answers.get(name) or answer(name, SETTINGS)
    if advice is not None:
        return f"{owner} has no attribute {name!r}: {advice}"
    near = None if name.startswith("_") else find_near(name, [one for one in known if not one.startswith("_")])
    hint = f"; did you mean {near!r}?" if near else ""
    return f"{owner} has no attribute {name!r}{hint}"
