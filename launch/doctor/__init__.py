"""Tries everything that a run needs, and says what to do about the rest."""
