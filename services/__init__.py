"""What runs inside the appliance. Nothing here imports from `hal`, nor `hal` from here."""
