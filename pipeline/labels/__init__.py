"""Tags to weak labels: the radiologist's study groups and the probe."""
