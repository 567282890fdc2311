"""Learning: what every algorithm shares: rollouts, returns, losses, the optimizer, schedules."""
