"""What a run is made of, decided before anything is started. Pure."""
