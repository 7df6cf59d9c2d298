"""Built-in plugins. Each imports the core and nothing of its neighbours."""
