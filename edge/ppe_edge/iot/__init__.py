"""Azure IoT Edge: the connection to the hub, and the module twin."""
