"""Tools that go to the web, and the one way there."""
