"""What travels between the processes of a run: records, their coding, and the sockets."""
