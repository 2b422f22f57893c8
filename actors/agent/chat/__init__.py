"""The agent against any chat server: requests, streams, answers, errors."""
