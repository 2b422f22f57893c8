"""The launcher and the provisioner for any Jupyter kernel."""
