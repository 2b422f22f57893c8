"""Sandboxed notebook kernels: one interface, several launchers, a pool and their own runtime."""
