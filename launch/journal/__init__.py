"""What people do with the journal of a run: look into it, check it, cut a piece out of it."""
