"""Sandboxed notebook kernels: one interface, two launchers, a pool and their own runtime."""
