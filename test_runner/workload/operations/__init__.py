"""What the workload does: an operation is a class, and families of them are files."""
