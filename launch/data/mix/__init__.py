"""Makes one training set of several task files, by a recipe; see docs/data.md."""
