"""Rewards scored in processes of their own."""
