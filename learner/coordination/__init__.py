"""What the head of the learner does with actors: tasks out, trajectories in."""
