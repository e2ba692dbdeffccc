"""What runs inside a container: template, init, runner. Imports msgpack and little else."""
