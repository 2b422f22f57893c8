"""Question sets as they are published: how files are read, and what their rows mean."""
