"""Rewards: what a classified image was worth, given what it cost.

``judgement`` is what is known of a prediction, ``shapes`` the reward shapes, ``registry`` how they are found by name or
taken from a user's module, ``price`` what compute costs.
"""

from lcnet_rl.rewards.judgement import Judgement, judge
from lcnet_rl.rewards.price import PriceRange, check_price, price_range
from lcnet_rl.rewards.registry import create_reward, is_smooth, register_reward, reward_names
from lcnet_rl.rewards.shapes import Lagrangian, Reward, free_reward, smoothed

__all__ = [
    "Judgement",
    "Lagrangian",
    "PriceRange",
    "Reward",
    "check_price",
    "create_reward",
    "free_reward",
    "is_smooth",
    "judge",
    "price_range",
    "register_reward",
    "reward_names",
    "smoothed",
]
