"""Whether a mathematical answer equals a gold one: text, structure, then a symbolic verifier."""
