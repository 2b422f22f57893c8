"""Rollout side: agents, kernels, tools, rewards and the policy server."""
