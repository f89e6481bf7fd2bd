"""What executes jobs: this machine's cores, or a Ray cluster."""
