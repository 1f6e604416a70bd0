"""The commands that grew out of `cli`: those that drive a sweep unattended, and those about the machine."""
