"""Critics, losses, augmentation and training of CoMIR models."""
