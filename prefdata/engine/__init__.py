"""Where stages run. A stage is a picklable function from its item to its result."""
