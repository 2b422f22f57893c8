"""Runs from the first check to the last process: training, evaluation, fine-tuning."""
