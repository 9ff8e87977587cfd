"""Other data sets' annotation formats to YOLO label files: ``python -m utils.dataset.converters FORMAT FOLDER``."""
