"""Turn a plan into running processes."""
