"""The host of a policy server: one process of ours around vLLM."""
