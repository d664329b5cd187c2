"""The claims of the papers, tested on a lab of small pairs."""
