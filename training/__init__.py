"""Programs that train models; nothing here is needed to build or to serve Atelier."""
