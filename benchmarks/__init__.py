"""Numbers with their machine, n and spread; every figure in README comes from here."""
