"""Direct Preference Optimization on precomputed reference log-probs."""
