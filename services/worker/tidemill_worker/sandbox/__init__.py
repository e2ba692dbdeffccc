"""The bubblewrap tier: containers that see and reach nothing of this machine."""
