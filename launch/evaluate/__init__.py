"""``lzero eval``: asks models questions, scores, compares and shows what came of it."""
