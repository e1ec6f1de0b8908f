"""The pure core: decides what the provisioner does next. `steps` is its door."""
