"""Tools that the agent calls from its notebook and that run on the host."""
