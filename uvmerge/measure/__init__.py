"""What moved, what chance gives, and what counts as a finding."""
