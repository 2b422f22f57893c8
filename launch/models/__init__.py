"""Model folders: checked, imported, exported."""
