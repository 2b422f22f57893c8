"""Text of documents, read in a sandbox of its own."""
