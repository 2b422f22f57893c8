"""What a run does and waits for, live and after the fact, from its folder alone."""
