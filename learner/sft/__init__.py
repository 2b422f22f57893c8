"""Supervised fine-tuning with the model, packing and sharding of the learner."""
