"""What services need of the bus beyond `tidemill._bus.protocol`."""
