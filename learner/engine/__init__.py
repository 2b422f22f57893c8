"""The model on its ranks: loading, sharding, adapters, attention, scores, optimizer."""
