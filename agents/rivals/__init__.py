"""Rivals: other papers' ways to learn which blocks run, on the same backbones, data and training budget.

What decides is in ``lcnet_rl.policies``; here is how it learns. Each is the joint trainer with its paper's estimator
and reward in the policy phase, and says what was simplified. All keep the rest of the harness: the price or rate that
meets the target, polishing on greedy decisions, distillation, a threshold set on validation images. Only the commands
import this folder.
"""
