"""What the learner minimises: pure functions of flat tensors, one module for each part.

``sampled`` measures the actions; ``weighted`` and ``clipped`` hold the objectives, which say how
much each token counts; ``policy_loss`` turns that into a loss; ``penalties`` add KL and entropy.
"""
