"""Limits of whole sandboxes: who watches them, and what they count."""
