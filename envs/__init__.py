"""The environments room: inference with an LCNet as gymnasium and stable-baselines3 see it.

An episode is one image, a step one residual block (see ../lcnet_rl/model.py, whose four calls do all the work).

single          ``LayerSkipEnv``, ``ChannelSkipEnv``, ``LayerChannelSkipEnv``: one image at a time
vector          ``LayerSkipVectorEnv`` and so on: many images in lockstep, one batched step for all
sb3             ``SB3VecEnv``: a vector environment as stable-baselines3 wants it
process         ``Process``, what they share: model, images, rewards and infos; ``Episode``, the images in flight
settings        ``Settings``, what they can be made with
network         the images, network, reward and prices that settings name, or a run has
observations    what an observation holds, and how a policy reads a gate's input back from it
rendering       a text and a picture of what ran so far

Agents and commands may import it. It imports ``lcnet_rl`` (never ``lcnet_rl.commands``) and never ``agents``.
"""
