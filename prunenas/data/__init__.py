"""Wing: data sets, resident on the device."""
