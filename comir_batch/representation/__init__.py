"""CoMIR: networks, normalisation, block inference, weights and cards."""
