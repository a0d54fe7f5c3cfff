"""Every precondition, looked at, each with its cure: of the data, of the programs that use it, of the host."""
