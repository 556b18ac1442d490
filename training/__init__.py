"""Recipe of the bundled model `nano`: data, losses, training, export and cost. See README.md beside this file."""
