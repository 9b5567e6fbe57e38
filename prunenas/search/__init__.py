"""Fourth floor: choosing substitutions under a budget. The only floor that knows Optuna."""
