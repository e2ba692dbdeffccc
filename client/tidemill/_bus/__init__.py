"""The bus: how Tidemill's processes speak. One protocol, several implementations."""
