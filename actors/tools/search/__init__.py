"""Full-text search over local corpora."""
