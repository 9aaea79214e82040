"""Programs that check a step: rewards that cost no model."""
