"""The embedded task: a generated encyclopedia, questions about it and demonstrations."""
