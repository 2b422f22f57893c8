"""The policy server: vLLM, started from a configuration, with our weight-transfer engine."""
