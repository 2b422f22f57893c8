"""From trajectories to packs of about the same cost for every rank."""
