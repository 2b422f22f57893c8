"""Direct mode: one answer without a notebook; how it is asked for, and read out of free text."""
