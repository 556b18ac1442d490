"""The recipe of the bundled model `nano`: data, losses, training, export and cost. See README.md in this folder."""
