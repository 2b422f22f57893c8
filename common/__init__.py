"""What actors, learner and launcher agree on; imports none of them, and nothing heavy."""
