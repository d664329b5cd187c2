"""The stages of the study: one file each, found by `stage.stages`."""
