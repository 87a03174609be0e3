"""The support desk's parts: its order database and tools, its second program, its report."""
