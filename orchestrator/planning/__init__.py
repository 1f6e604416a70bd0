"""Planning: the ladder, its cost, samplers, narrowing and promotion."""
