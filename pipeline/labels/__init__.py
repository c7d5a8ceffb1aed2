"""Tags to weak labels: the radiologist's study groups, the probe, and other fields that a recipe names."""
