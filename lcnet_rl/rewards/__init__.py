"""Rewards: what a classified image was worth, given what it cost.

``judgement`` is what is known of a prediction, ``shapes`` the reward shapes, ``registry`` how they are found by name or
taken from a user's module, ``trial`` what is found out by trying one, ``values`` checks of what it returns, ``price``
what compute costs. Anything above may import it, as models, environments and agents do; it imports none of these.
"""

from lcnet_rl.rewards.judgement import Judgement, judge
from lcnet_rl.rewards.price import PriceRange, check_price, price_range
from lcnet_rl.rewards.registry import Shape, create_reward, register_reward, reward_names
from lcnet_rl.rewards.shapes import Lagrangian, Reward, free_reward, smoothed
from lcnet_rl.rewards.trial import is_linear, is_smooth, price_matters
from lcnet_rl.rewards.values import check_slopes

__all__ = [
    "Judgement",
    "Lagrangian",
    "PriceRange",
    "Reward",
    "Shape",
    "check_price",
    "check_slopes",
    "create_reward",
    "free_reward",
    "is_linear",
    "is_smooth",
    "judge",
    "price_matters",
    "price_range",
    "register_reward",
    "reward_names",
    "smoothed",
]
