"""Training side: intake, batches, objective, optimizer, checkpoints, weight publishing."""
