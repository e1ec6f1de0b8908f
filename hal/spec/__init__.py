"""The appliance file: its values, what they mean together, and how it is read (`loading`)."""
