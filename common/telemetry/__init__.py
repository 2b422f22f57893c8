"""What processes say about themselves: log lines, numbers of steps, alerts."""
