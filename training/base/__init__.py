"""The recipe of the shipped base: package names in, a model folder that Atelier loads out. README.md says how."""
