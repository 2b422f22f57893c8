"""Tools of MCP servers as functions of the notebook."""
