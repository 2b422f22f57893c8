"""What runs inside the sandbox: standard library, IPython and msgpack only, nothing of the rest."""
