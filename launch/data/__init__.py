"""Tasks, corpora and traces: converted, generated, checked."""
