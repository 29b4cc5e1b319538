"""How an encoder's weights are learned: settings, nets with their losses, the optimiser's step, the curve."""
