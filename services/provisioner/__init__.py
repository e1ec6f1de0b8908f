"""The provisioner: brings models into the appliance, verifies them, and never shows half of one."""
