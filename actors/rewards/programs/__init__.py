"""Whether a program passes its tests, found out in sandboxes."""
