"""The notebook agent: the loop of an episode, its context, its notepad and its prompt."""
