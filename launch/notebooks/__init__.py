"""Episodes shown to people: in a terminal, as notebooks."""
