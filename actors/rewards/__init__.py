"""What an answer is worth: comparisons with gold answers, and the terms of a reward."""
