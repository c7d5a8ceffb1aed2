"""The work itself, from DICOM files to the results table; knows neither Dagster nor MLflow."""
