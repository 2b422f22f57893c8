"""Starting, checking, stopping and reporting runs."""
