"""Weight versions on their way to the policy servers, and the proof that they arrived."""
