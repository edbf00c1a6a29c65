"""Who decides: the joint agent, stable-baselines3's PPO and A2C around the same gates, and the controls.

May import ``lcnet_rl`` (but not its commands) and ``envs``; only ``lcnet_rl.commands`` and tests import it.
"""
